"""The one abstraction of the library: a transfer-learning strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, cast

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from ..backbones.tap import extract
from ..utils import MonaiEngine, UserError, sum_over_processes, unwrap

__all__ = ["Chain", "Context", "Step", "Strategy", "Target"]


@dataclass(frozen=True)
class Step:
    """What one training iteration offers to a strategy.

    Attributes:
        network: the network being trained, without any wrapper (names are those seen by ``prepare``).
        image: input batch, ``(B, C, *spatial)``, as the network received it.
        label: ground truth as the task loss received it.
        pred: output of ``network`` for ``image``.
        progress: fraction of training done, in ``[0, 1)``.
        batch: the whole batch as the data loader gave it (patients, domains, sample weights).
        task_loss: the task's loss of this iteration, before any strategy's term.
    """

    network: nn.Module
    image: Tensor
    label: Tensor
    pred: Any
    progress: float
    batch: Mapping[str, Any] = field(default_factory=dict)
    task_loss: Tensor | None = None


class Target(Protocol):
    """Images without labels, of the target domain or simply more of them, batch after batch without end."""

    def __iter__(self) -> Iterator[Tensor]:
        """Every image once, in batches ``(B, C, *spatial)``, normalized and not augmented."""

    def restart(self) -> None:
        """Begin anew; called at the start of every epoch."""

    def next(self, *views: str) -> list[Tensor]:
        """The next batch ``(B, C, *spatial)``, normalized, once for each view: ``plain`` or ``augmented``."""


@dataclass(frozen=True)
class Context:
    """What a run can offer to a strategy before it starts.

    Attributes:
        labels: of the training images, in the task's form.
        classes: number of classes.
        target: images without labels.
        source_head: the pretrained network's own last layer, from its features to the source's classes.
        task: ``classification``, ``multilabel`` or ``segmentation``.
        source: the training images in batches ``(B, C, *spatial)``, in their order, normalized and not augmented.
        weights: the sample weight of each training image, as the user wrote it.
        domains: the domain (scanner, hospital) of each training image.
        boxes: around the lesions of each training image.
        extract: from a network and ``source`` or ``target`` to what enters its head, ``(N, F)``, on the CPU.
    """

    labels: Sequence[Any] = ()
    classes: int = 0
    target: Target | None = None
    source_head: nn.Module | None = None
    task: str = "classification"
    source: Iterable[Tensor] | None = None
    weights: Sequence[Any] = ()
    domains: Sequence[str] = ()
    boxes: Sequence[Any] = ()
    extract: Callable[[nn.Module, Any], Tensor] = extract


class Strategy(nn.Module):
    """How a network is transferred: what is trained, at which rate, under which extra loss.

    A strategy never changes what the network computes at inference (that is a *variant*). Buffers hold what it
    remembers (an anchor, a teacher), parameters what it learns besides the network (a domain discriminator), so
    ``.to()`` and ``state_dict()`` need no code. Override only the hooks that the method needs. When training goes on
    from a checkpoint, load the strategy's state after ``prepare``.

    Raises:
        UserError: a setting is out of the range that the strategy's card names; or, in training, what the
            strategy meets is not what it is for.
    """

    needs_source: ClassVar[bool] = False
    """Whether the strategy is meaningless without pretrained weights."""
    sets_trainable: ClassVar[bool] = False
    """Whether the strategy decides which parameters are trained: a chain can hold one such part."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What the strategy needs of :class:`Context`."""
    tasks: ClassVar[tuple[str, ...]] = ("classification", "multilabel", "segmentation")
    """The tasks that the strategy makes sense for."""
    measures: ClassVar[bool] = False
    """Whether the strategy measures what an epoch leaves: in a chain it does so after the other parts."""
    averages: ClassVar[bool] = False
    """Whether the network holds other weights between epochs than it trains: a chain can hold one such part."""
    cached: ClassVar[Literal["freezes", "beside", ""]] = ""
    """Whether it goes with cached features of the first blocks: it ``freezes`` them; or it stands ``beside`` what does,
    since in training it looks at no image and moves no frozen block; or it does not. Each class says it anew."""

    asked: tuple[str, dict[str, Any]] | None = None
    """The name and the arguments that it was asked for by; none if it was made as an object."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "cached" not in vars(cls):  # what derives from a strategy that looks at no image may look at one
            cls.cached = ""

    def __init__(self) -> None:
        super().__init__()
        self._context = Context()

    @property
    def name(self) -> str:
        """What it was asked for by, or else its class."""
        return self.asked[0] if self.asked else type(self).__name__

    @property
    def context(self) -> Context:
        """What the run offers."""
        return self._context

    def bind(self, context: Context) -> None:
        """Take what the run offers; called before ``prepare``.

        Raises:
            UserError: something that the strategy needs is not there, or it is not for this task.
        """
        if context.task not in self.tasks:
            tasks = " and ".join(self.tasks)
            raise UserError(f"{type(self).__name__} is for {tasks}, not for {context.task}: choose another strategy.")
        for name in self.needs:
            value = getattr(context, name)
            if value is None or value == 0 or (isinstance(value, Sequence) and not value):
                raise UserError(f"{type(self).__name__} needs {NEEDED[name]}")
        self._context = context

    @property
    def from_scratch(self) -> bool:
        """Whether pretrained weights are to be left out."""
        return False

    def prepare(self, network: nn.Module) -> nn.Module:
        """Bind to ``network`` before the optimizer exists; return the same object, its function unchanged."""
        return network

    def param_groups(self, network: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Optimizer groups that hold every parameter once, frozen ones included (they may be unfrozen later)."""
        own = [p for p in self.parameters() if p.requires_grad]
        return [{"params": list(network.parameters()), "lr": lr}] + ([{"params": own, "lr": lr}] if own else [])

    def on_forward(self) -> None:
        """Called after the trainer's own forward pass, before any loss: the moment to look at features."""

    def loss(self, step: Step) -> Tensor | None:
        """Scalar added to the task loss of this iteration, or ``None``."""
        return None

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Called before every epoch; ``epoch`` counts from 1."""

    def close(self) -> None:
        """Take everything off the network again that ``prepare`` put there (hooks)."""

    def attach(self, engine: Engine) -> None:
        """Make ``engine`` (a MONAI trainer) follow this strategy; called by MONAI as for any handler.

        In each iteration ``engine.state.output["loss_parts"]`` then holds, without gradients, the loss that the trainer
        computed under ``task`` and what each strategy added under its name; in this order they sum up to ``loss``.
        """
        name = _free_name(engine, self.name)
        if self.context.target is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, lambda _: cast("Target", self.context.target).restart())
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: self.on_epoch(unwrap(e.network), e.state.epoch))
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda _: self.on_forward())
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, lambda e: self._add_loss(e, name))
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda _: self._average_gradients())
        engine.add_event_handler(Events.COMPLETED, lambda _: self.close())

    def _average_gradients(self) -> None:
        """Over the processes of a training: what a strategy learns itself stands outside the distributed network."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        processes = sum_over_processes(*gradients)
        for gradient in gradients if processes > 1 else ():
            gradient.div_(processes)

    def _add_loss(self, engine: MonaiEngine, name: str) -> None:
        out, state = engine.state.output, engine.state
        progress = (state.iteration - 1) / (state.max_epochs * state.epoch_length)
        batch: Mapping[str, Any] = state.batch if isinstance(state.batch, Mapping) else {}
        task_loss = out.setdefault("task_loss", out["loss"])
        parts = out.setdefault("loss_parts", {"task": task_loss.detach()})
        step = Step(unwrap(engine.network), out["image"], out["label"], out["pred"], progress, batch, task_loss)
        extra = self.loss(step)
        if extra is not None:
            out["loss"] = out["loss"] + extra
            parts[name] = extra.detach()


class Chain(Strategy):
    """Several strategies applied in order; their extra losses add up.

    Raises:
        UserError: two parts set learning rates, decide what is trained or average the weights, or one wants source
            weights and another leaves them out.
    """

    def __init__(self, *parts: Strategy) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        for what, does in _ONE_CAN.items():
            clashing = list(filter(does, parts))
            if len(clashing) > 1:
                raise UserError(
                    f"only one strategy of a chain can {what}, got {_names(clashing)}: leave out all but one."
                )
        sourced = [part for part in parts if part.needs_source]
        if self.from_scratch and sourced:
            raise UserError(
                f"{_names(sourced)} needs pretrained weights, and scratch leaves them out: choose one of the two."
            )

    def __iter__(self) -> Iterator[Strategy]:
        return iter(self.parts)  # type: ignore[arg-type]

    @property
    def from_scratch(self) -> bool:
        """Whether any part leaves the pretrained weights out."""
        return any(part.from_scratch for part in self)

    def bind(self, context: Context) -> None:
        """Bind every part."""
        for part in self:
            part.bind(context)

    def prepare(self, network: nn.Module) -> nn.Module:
        """Prepare part after part."""
        for part in self:
            network = part.prepare(network)
        return network

    def param_groups(self, network: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Groups of the one part that sets learning rates, and what the other parts learn themselves."""
        grouping = next(filter(_sets_rates, self), None)
        if grouping is None:
            return super().param_groups(network, lr)
        rest = [p for part in self if part is not grouping for p in part.parameters() if p.requires_grad]
        return grouping.param_groups(network, lr) + ([{"params": rest, "lr": lr}] if rest else [])

    def close(self) -> None:
        """Close every part."""
        for part in self:
            part.close()

    def attach(self, engine: Engine) -> None:
        """Attach every part."""
        for part in sorted(self, key=lambda part: part.measures):
            part.attach(engine)


def _sets_rates(part: Strategy) -> bool:
    return type(part).param_groups is not Strategy.param_groups


_ONE_CAN: dict[str, Callable[[Strategy], bool]] = {
    "set learning rates": _sets_rates,
    "decide what is trained": lambda part: part.sets_trainable,
    "average the weights": lambda part: part.averages,
}
"""What only one strategy of a chain can do, and whether one does it."""

NEEDED = {
    "labels": "the training labels: bind it to a run's context.",
    "classes": "the number of classes: bind it to a run's context.",
    "target": "images without labels: give their folder with --target_dir.",
    "source": "the training images: bind it to a run's context.",
    "weights": "a weight for each training image: add the column weight to the table.",
    "domains": "the domain of each training image: add the column domain to the table.",
    "boxes": "boxes around lesions: give the table the columns x, y, width and height, in pixels from the top left.",
    "source_head": "the source's own classes, which these weights do not carry: choose weights with a head.",
}
"""What each entry of :attr:`Strategy.needs` is, and how a user gives it."""


def _free_name(engine: Engine, name: str) -> str:
    """``name``, or with a number if a strategy of ``engine`` has it: parts of the loss must not hide each other."""
    taken = getattr(engine, "loss_names", ["task"])
    free = next(one for one in (name, *(f"{name} {i}" for i in range(2, len(taken) + 3))) if one not in taken)
    engine.loss_names = [*taken, free]  # type: ignore[attr-defined]
    return free


def _names(parts: list[Strategy]) -> str:
    return " and ".join(type(part).__name__ for part in parts)
