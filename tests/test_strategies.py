"""The contract of every strategy, then one independent check for each method."""

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from conftest import context
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

from medtl_monai import strategies
from medtl_monai.backbones import anatomy
from medtl_monai.backbones import build as build_network
from medtl_monai.bundle import EpochSeed
from medtl_monai.strategies import (
    FAMILIES,
    STRATEGIES,
    Chain,
    Step,
    Strategy,
    build,
    l1_penalty,
    l2_penalty,
    l2_sp_penalty,
)
from medtl_monai.strategies.base import NEEDED
from medtl_monai.utils import UserError, is_under

SETTINGS = {  # of the contract: a row a strategy; its defaults where nothing is said
    "adabn": "",
    "afn": "",
    "alpha_beta": "",
    "attention_transfer": "",
    "auto_rgn": "",
    "bitfit": "",
    "bss": "",
    "cdan": "",
    "class_balanced": "",
    "co_tuning": "",
    "coral": "",
    "dann": "",
    "delta": "",
    "discriminative": "",
    "ema": "",
    "finetune": "",
    "fixmatch": "",
    "focal": "",
    "freeze": "",
    "freeze_bn": "",
    "gradual_unfreeze": "",
    "importance": "",
    "jan": "",
    "l1": "",
    "l1_sp": "",
    "l2": "",
    "l2_sp": "",
    "linear_dependency": "",
    "localization": "",
    "lp_ft": "probe_epochs=1",
    "lwf": "",
    "mcc": "",
    "mean_teacher": "",
    "mixout": "",
    "mixstyle": "",
    "mmd": "",
    "partial_freeze": "",
    "pseudo_label": "",
    "rkd": "",
    "sample_weights": "",
    "scratch": "",
    "simcvd": "",
    "similarity_preserving": "",
    "source_selection": "keep=0.9",
    "surgical": "",
    "swa": "start=0.25",
    "tradaboost": "",
    "vat": "",
}
CLASSIFYING = [name for name, cls in STRATEGIES.items() if "classification" in cls.tasks]
PAIRS = list(itertools.combinations(CLASSIFYING, 2))


def asked(*names):
    """What the contract trains."""
    return " + ".join(f"{name}({SETTINGS[name]})" for name in names)


def clash(first, second):
    """Whether a chain cannot hold both."""
    a, b = STRATEGIES[first], STRATEGIES[second]
    scratch = {"scratch"} & {first, second}
    rates = all(cls.param_groups is not Strategy.param_groups for cls in (a, b))
    both = (a.sets_trainable and b.sets_trainable) or (a.averages and b.averages)
    return rates or both or (scratch and (a.needs_source or b.needs_source))


class Toy(nn.Module):
    """Two blocks with batch norm and a head, in any number of spatial dimensions."""

    def __init__(self, dims=2):
        super().__init__()
        conv, norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
        self.stem = nn.Sequential(conv(1, 4, 3, padding=1), norm(4), nn.ReLU())
        self.body = nn.Sequential(conv(4, 4, 3, padding=1), norm(4), nn.ReLU(), nn.Dropout(0.2))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).flatten(2).mean(-1))


def loader(dims=2, n=16):
    generator = torch.Generator().manual_seed(0)
    lesion = torch.zeros(1, *[6] * dims)
    lesion[:, :3] = 1
    cases = [
        {
            "image": torch.randn(1, *[6] * dims, generator=generator) + 2.0 * (i % 2),
            "label": i % 2,
            "index": i,
            "lesion": lesion,
        }
        for i in range(n)
    ]
    return DataLoader(Dataset(cases), batch_size=8)


def bound(strategy, dims=2):
    torch.manual_seed(0)
    strategy.bind(context(4, size=[6] * dims))
    return strategy


def trainer(strategy, net, epochs=1, **kwargs):
    torch.manual_seed(0)
    net = strategy.prepare(net)
    optimizer = torch.optim.AdamW(strategy.param_groups(net, lr=0.05), lr=0.05)
    kwargs = {"train_data_loader": loader(), "optim_set_to_none": True, **kwargs}
    return SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, network=net, optimizer=optimizer,
        loss_function=nn.CrossEntropyLoss(), train_handlers=[strategy], **kwargs,
    )  # fmt: skip


def fit(strategy, net, epochs=1, **kwargs):
    trainer(strategy, net, epochs, **kwargs).run()
    return net


def toy(dims=2):
    torch.manual_seed(0)
    return Toy(dims)


@pytest.fixture(params=CLASSIFYING)
def strategy(request):
    return bound(build(asked(request.param)))


class TestContract:
    """Every strategy for classification, on its own."""

    @pytest.mark.parametrize("dims", [2, 3])
    def test_prepare_keeps_function_and_keys(self, strategy, dims):
        net = toy(dims)
        bound(strategy, dims)
        before, x = copy.deepcopy(net).eval(), torch.randn(2, 1, *[6] * dims)
        after = strategy.prepare(net).eval()
        assert after is net
        assert list(after.state_dict()) == list(before.state_dict())
        assert torch.equal(after(x), before(x))

    def test_param_groups_hold_every_parameter_once(self, strategy):
        net = toy()
        ids = [id(p) for g in strategy.param_groups(strategy.prepare(net), lr=0.1) for p in g["params"]]
        own = [p for p in strategy.parameters() if p.requires_grad]
        assert sorted(ids) == sorted(map(id, [*net.parameters(), *own]))

    @pytest.mark.parametrize("dims", [2, 3])
    def test_training_moves_the_head_and_is_reproducible(self, strategy, dims):
        a = fit(bound(copy.deepcopy(strategy), dims), toy(dims), 2, train_data_loader=loader(dims))
        b = fit(bound(copy.deepcopy(strategy), dims), toy(dims), 2, train_data_loader=loader(dims))
        assert not torch.equal(a.fc.weight, toy(dims).fc.weight)
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.equal(p, q)

    @pytest.mark.filterwarnings("ignore:.*GradScaler", "ignore:.*CUDA is not available")  # MONAI's AMP without a GPU
    def test_works_with_gradient_accumulation_and_autocast(self, strategy):
        net = fit(strategy, toy(), accumulation_steps=2, amp=True)
        assert all(p.isfinite().all() for p in net.parameters())

    def test_state_survives_a_round_trip(self, strategy):
        strategy.prepare(toy())
        clone = copy.deepcopy(strategy)
        clone.load_state_dict(strategy.state_dict())
        for key, value in strategy.state_dict().items():
            assert torch.equal(value, clone.state_dict()[key])

    def test_a_stopped_and_resumed_training_equals_the_whole(self, strategy):
        """As ``medtl_monai.bundle.Resume`` does it: at ``STARTED``, each epoch with its own seed."""
        whole, cut, kept = toy(), toy(), {}

        def stop(engine):
            parts = (cut, engine.optimizer, cut_strategy)
            kept.update(
                copy.deepcopy({i: part.state_dict() for i, part in enumerate(parts)}), engine=engine.state_dict()
            )
            engine.terminate()

        def go_on(engine):
            for i, part in enumerate((again, engine.optimizer, strategy)):
                part.load_state_dict(kept[i])
            engine.load_state_dict({**kept["engine"], "max_epochs": 4})

        def run(own, net, *handlers):
            engine = trainer(own, net, 4)
            EpochSeed(0).attach(engine)
            for event, handler in handlers:
                engine.add_event_handler(event, handler)
            engine.run()

        cut_strategy, again = copy.deepcopy(strategy), toy()
        run(copy.deepcopy(strategy), whole)
        run(cut_strategy, cut, (Events.EPOCH_COMPLETED(once=2), stop))
        run(strategy, again, (Events.STARTED, go_on))
        for key, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), key

    def test_hooks_are_gone_after_training_and_a_copy_is_independent(self, strategy):
        net = fit(strategy, toy(), 2)
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())
        assert list(copy.deepcopy(net).state_dict()) == list(toy().state_dict())

    def test_same_weights_with_and_without_ddp(self, strategy, tmp_path):
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
        try:
            other, prepare = copy.deepcopy(strategy), strategy.prepare
            plain = fit(other, toy(), 3)
            net = toy()
            strategy.prepare = lambda n: nn.parallel.DistributedDataParallel(prepare(n), find_unused_parameters=True)
            fit(strategy, net, 3)
        finally:
            torch.distributed.destroy_process_group()
        for p, q in zip(plain.parameters(), net.parameters(), strict=True):
            assert torch.equal(p, q)


def _one_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    strategy, net = bound(build(["dann", "co_tuning", "tradaboost"])), toy()
    cases = [{**case, "image": case["image"] + rank} for case in loader().dataset][rank::2]
    prepare = strategy.prepare
    strategy.prepare = lambda n: nn.parallel.DistributedDataParallel(prepare(n), find_unused_parameters=True)
    fit(strategy, net, 3, train_data_loader=DataLoader(Dataset(cases), batch_size=4))
    torch.save(strategy.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_one_strategy(tmp_path):
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], msg=key)
    assert one["parts.1.counts"].sum() == 16
    assert one["parts.2.seen"].sum() == 16


def _all_in_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    trained = {}
    for name in CLASSIFYING:
        strategy, net = bound(build(asked(name))), toy()
        cases = [{**case, "image": case["image"] + rank} for case in loader().dataset][rank::2]
        prepare = strategy.prepare
        strategy.prepare = lambda n, prepare=prepare: nn.parallel.DistributedDataParallel(
            prepare(n), find_unused_parameters=True
        )
        fit(strategy, net, 3, train_data_loader=DataLoader(Dataset(cases), batch_size=4))
        trained |= {f"{name}.{key}": value.detach() for key, value in net.named_parameters()}
    torch.save(trained, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_by_every_strategy(tmp_path):
    torch.multiprocessing.spawn(_all_in_two, (str(tmp_path),), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert {key.split(".")[0] for key in one} == set(CLASSIFYING)
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], msg=key)


def test_virtual_adversarial_self_training_is_a_chain():
    net = toy()
    fit(bound(build(["fixmatch", "vat"])), net, 2)
    assert net.fc.weight.isfinite().all()
    assert not torch.equal(net.fc.weight, toy().fc.weight)


@pytest.mark.parametrize("name", STRATEGIES)
def test_has_a_method_card(name):
    for heading in ("What it does", "When it helps", "Cost", "What it cannot do", "References:"):
        assert heading in STRATEGIES[name].__doc__


class Places(Toy):
    """The same for segmentation: a class for each place."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)))


@pytest.mark.parametrize("name", STRATEGIES)
def test_segmentation_is_trained_or_refused_before_training(name):
    strategy = build(asked(name))
    cases = [{"image": c["image"], "label": (c["image"][0] > 1).long()} for c in loader().dataset]
    if "segmentation" not in strategy.tasks:
        with pytest.raises(UserError, match="is for classification.* not for segmentation"):
            strategy.bind(context(4, task="segmentation"))
        return
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        net, strategy = Places(), build(asked(name))
        strategy.bind(context(4, task="segmentation"))
        before = copy.deepcopy(net.state_dict())
        fit(strategy, net, 2, train_data_loader=DataLoader(Dataset(cases), batch_size=8))
        assert net.fc.weight.isfinite().all()
        assert not torch.equal(net.fc.weight, before["fc.weight"])
        assert list(net.state_dict()) == list(before)
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())
        trained.append(net.fc.weight)
    assert torch.equal(*trained)


def test_two_that_clash_are_refused_with_a_reason():
    clashing = [pair for pair in PAIRS if clash(*pair)]
    assert clashing
    for pair in clashing:
        with pytest.raises(UserError, match="leave out all but one|choose one of the two"):
            build(list(pair))


@pytest.mark.parametrize(
    "pair", random.Random(0).sample([pair for pair in PAIRS if not clash(*pair)], 120), ids="-".join
)
def test_any_two_others_compose(pair):
    fit(bound(build(asked(*pair))), toy())


def test_two_that_set_learning_rates_are_refused():
    with pytest.raises(UserError, match="set learning rates"):
        build([STRATEGIES["discriminative"](), "discriminative"])


@pytest.mark.parametrize("name", ["freeze", "partial_freeze", "gradual_unfreeze", "lp_ft"])
def test_frozen_blocks_do_not_move_by_one_bit(name):
    net = build_network("mobilenet_v2", in_channels=1, num_classes=2, width=0.25)
    parts = anatomy(net)
    strategy = build("lp_ft(probe_epochs=9)" if name == "lp_ft" else name)
    before = copy.deepcopy(net.state_dict())
    generator = torch.Generator().manual_seed(0)
    cases = [{"image": torch.randn(1, 32, 32, generator=generator), "label": i % 2} for i in range(8)]
    fit(strategy, net, 2, train_data_loader=DataLoader(Dataset(cases), batch_size=4))
    frozen = {"freeze": slice(None, -1), "lp_ft": slice(None, -1), "partial_freeze": slice(None, 5)}.get(
        name, slice(None, -2)
    )
    prefixes = [p for block in parts.blocks[frozen] for p in block.prefixes]
    kept = [key for key in before if is_under(key, prefixes)]
    assert any("running_mean" in key for key in kept)
    for key in kept:
        assert torch.equal(net.state_dict()[key], before[key]), key
    assert not torch.equal(net.get_parameter(f"{parts.head}.1.weight"), before[f"{parts.head}.1.weight"])


def test_freeze_bn_holds_statistics_and_trains_scale_and_shift():
    net, start = toy(), toy()
    fit(build("freeze_bn"), net, 2)
    assert torch.equal(net.stem[1].running_mean, start.stem[1].running_mean)
    assert torch.equal(net.stem[1].num_batches_tracked, start.stem[1].num_batches_tracked)
    assert not torch.equal(net.stem[1].weight, start.stem[1].weight)


@pytest.mark.parametrize("first", ["finetune", "freeze"])
def test_ema_validates_the_average_and_trains_the_weights(first):
    plain = trainer(bound(build(first)), toy(), 8)
    passed = [copy.deepcopy(plain.network.state_dict())]
    plain.add_event_handler(Events.ITERATION_COMPLETED, lambda e: passed.append(copy.deepcopy(e.network.state_dict())))
    plain.run()
    average, expected = passed[0], []
    for step, state in enumerate(passed[1:], 1):
        share = max(1 / 2.4, 9 / (9 + step))  # 1.2 epochs of 2 steps, from the thirteenth step on
        average = {
            key: torch.lerp(average[key].double(), value.double(), share) if value.is_floating_point() else value
            for key, value in state.items()
        }
        expected.append(average)
    chain = bound(build(f"{first} + ema(epochs=1.2)"))
    averaged, seen = trainer(chain, toy(), 8), []
    averaged.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(copy.deepcopy(e.network.state_dict())))
    averaged.run()
    for found, wanted in zip(seen, expected[1::2], strict=True):
        for key, value in found.items():
            torch.testing.assert_close(value.double(), wanted[key].double(), rtol=1e-4, atol=1e-6)
            if key.startswith(("stem", "body")) and first == "freeze":
                assert torch.equal(value, passed[0][key])  # frozen: not one bit
    assert not torch.equal(seen[-1]["fc.weight"], passed[-1]["fc.weight"])
    own = dict(chain.parts[1].average.named_buffers())
    for key, value in plain.network.state_dict().items():
        assert torch.equal(own[key.replace(".", "/")], value)


def test_ema_goes_on_in_a_second_run():
    strategies = [bound(build("ema(epochs=9)")) for _ in range(2)]
    whole, cut = (trainer(strategy, toy(), 4) for strategy in strategies)
    for engine in (whole, cut):
        EpochSeed(0).attach(engine)
    whole.run()
    cut.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda e: e.terminate())
    cut.run()
    average = copy.deepcopy(cut.network.state_dict())
    cut.run()
    assert not torch.equal(cut.network.fc.weight, average["fc.weight"])
    for first, second in ((whole.network, cut.network), strategies):
        for key, value in first.state_dict().items():
            assert torch.equal(second.state_dict()[key], value), key


def test_ema_begins_with_the_weights_that_training_begins_with():
    strategy, net = bound(build("ema")), toy()
    engine = trainer(strategy, net)
    others = {key: value + 1 for key, value in net.state_dict().items()}
    engine.add_event_handler(Events.STARTED, lambda _: net.load_state_dict(others))
    engine.add_event_handler(Events.ITERATION_STARTED(once=1), lambda e: e.terminate())
    engine.run()
    for key, value in others.items():
        assert torch.equal(strategy.average.get_buffer(key.replace(".", "/")), value)


def test_ema_exchanges_a_weight_of_two_names_once():
    tied = toy()
    tied.also = tied.body
    fit(bound(build("ema(epochs=9)")), tied, 2)
    alone = fit(bound(build("ema(epochs=9)")), toy(), 2)
    for key, value in alone.state_dict().items():
        assert torch.equal(tied.state_dict()[key], value)


def test_ema_over_no_epoch_is_finetune():
    plain, averaged = (
        fit(bound(build("finetune")), toy(), 2),
        fit(bound(build("ema(epochs=0)")), toy(), 2),
    )
    for key, value in plain.state_dict().items():
        assert torch.equal(averaged.state_dict()[key], value)


def test_freeze_bn_refuses_a_network_without_batch_norm():
    with pytest.raises(UserError, match="has no batch norm"):
        build("freeze_bn").prepare(nn.Linear(2, 2))


def trainable_by_epoch(strategy, epochs):
    seen = []
    engine = trainer(strategy, toy(), epochs)
    engine.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda e: seen.append(
            {name.split(".")[0] for name, p in e.network.named_parameters() if p.requires_grad and p.grad is not None}
        ),
    )
    engine.run()
    return seen


def test_gradual_unfreeze_opens_blocks_from_the_head():
    strategy = build("gradual_unfreeze(every=2)")
    head, two, all_ = {"fc"}, {"fc", "body"}, {"fc", "body", "stem"}
    assert trainable_by_epoch(strategy, 5) == [head, head, two, two, all_]


def test_lp_ft_probes_then_trains_everything():
    strategy = build("lp_ft(probe_epochs=1)")
    assert trainable_by_epoch(strategy, 2) == [{"fc"}, {"fc", "body", "stem"}]


def test_discriminative_rates_decay_from_the_head():
    groups = build("discriminative(decay=0.5)").param_groups(toy(), lr=1.0)
    assert [g["lr"] for g in groups] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("blocks", [0, 3, -3, 7])
def test_partial_freeze_refuses_all_or_nothing(blocks):
    with pytest.raises(UserError, match="the blocks are stem, body, fc"):
        build(f"partial_freeze(blocks={blocks})").prepare(toy())


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 9), seed=st.integers(0, 99))
def test_penalties_against_numpy(n, seed):
    rng = np.random.default_rng(seed)
    w, a = rng.normal(size=(2, n, 3))
    as_list = [torch.tensor(w[0]), torch.tensor(w[1:])]
    np.testing.assert_allclose(l1_penalty(as_list), np.linalg.norm(w.ravel(), 1), rtol=1e-10)
    np.testing.assert_allclose(l2_penalty(as_list), np.linalg.norm(w) ** 2 / 2, rtol=1e-10)
    got = l2_sp_penalty([torch.tensor(w)], [torch.tensor(a)])
    np.testing.assert_allclose(got, np.linalg.norm(w - a) ** 2 / 2, rtol=1e-10)


def step(net):
    return Step(net, torch.empty(0), torch.empty(0), None, 0.0)


def test_l2_sp_by_hand():
    net = toy()
    strategy = build("l2_sp(alpha=0.5, beta=2.0)")
    strategy.prepare(net)
    head = sum(p.square().sum() for p in net.fc.parameters())
    torch.testing.assert_close(strategy.loss(step(net)), head)  # beta / 2 = 1, and nothing has moved yet
    with torch.no_grad():
        net.stem[0].bias += 3.0
    torch.testing.assert_close(strategy.loss(step(net)), head + 0.25 * 4 * 9.0)


def test_l2_sp_holds_weights_back():
    def moved(alpha):
        net = fit(build(f"l2_sp(alpha={alpha}, beta=0.0)"), toy(), 3)
        return (net.stem[0].weight - toy().stem[0].weight).norm()

    assert moved(10.0) < 0.8 * moved(0.0)


@pytest.mark.parametrize(("name", "want"), [("l1", 2 * 6.0), ("l2", 2 * 7.0)])
def test_norm_penalties_leave_out_biases_and_frozen_weights(name, want):
    net = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
        net[0].bias.fill_(100.0)
    net[1].requires_grad_(False)
    assert build(f"{name}(weight=2.0)").loss(step(net)).item() == want


def test_extra_losses_of_a_chain_add_up():
    chain = build("l1(weight=1.0) + l2(weight=1.0)")
    engine = trainer(chain, toy(), 1, train_data_loader=loader(n=8))
    net, seen = copy.deepcopy(engine.network), []
    engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda e: seen.append(dict(e.state.output)))
    engine.run()
    task = nn.functional.cross_entropy(seen[0]["pred"].detach(), seen[0]["label"])
    weights = [p for p in net.parameters() if p.ndim > 1]
    assert seen[0]["loss"].item() == pytest.approx((task + l1_penalty(weights) + l2_penalty(weights)).item(), rel=1e-5)


def losses(engine):
    """Of each iteration of ``engine``: the output as the backward pass finds it, without what changes."""
    seen = []
    engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda e: seen.append(dict(e.state.output)))
    engine.run()
    return seen


def test_the_parts_of_the_loss_by_hand():
    """Batch norm on its batch, dropout drawn once, smoothed labels: the task's part is the trainer's own number."""
    chain = build("l1(weight=0.5) + freeze_bn + l2_sp(alpha=4.0, beta=2.0)")
    engine = trainer(chain, toy(), 1, train_data_loader=loader(n=8))
    engine.loss_function = nn.CrossEntropyLoss(label_smoothing=0.1)
    net = copy.deepcopy(engine.network)
    (out,) = losses(engine)
    assert list(out["loss_parts"]) == ["task", "l1", "l2_sp"]
    parts = {name: value.item() for name, value in out["loss_parts"].items()}
    log_p = out["pred"].detach().double().log_softmax(1)
    truth = 0.05 + 0.9 * nn.functional.one_hot(out["label"], 2)  # 0.1 is shared by both classes
    assert parts["task"] == pytest.approx(-(truth * log_p).sum(1).mean().item(), rel=1e-6)
    assert parts["l1"] == pytest.approx(0.5 * sum(p.abs().sum().item() for p in net.parameters() if p.ndim > 1))
    assert parts["l2_sp"] == pytest.approx(sum(p.square().sum().item() for p in net.fc.parameters()))  # beta / 2 = 1
    assert out["loss"].item() == pytest.approx(sum(parts.values()), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*GradScaler", "ignore:.*CUDA is not available")  # MONAI's AMP without a GPU
@pytest.mark.parametrize("more", [{}, {"accumulation_steps": 2}, {"amp": True}])
def test_the_parts_sum_up_to_the_loss_and_keep_no_graph(more):
    chain = bound(build("focal + l2 + vat + mixout + alpha_beta(beta=0.5) + ema"))
    for out in losses(trainer(chain, toy(), 2, **more)):
        parts = out["loss_parts"]
        assert list(parts) == ["task", "focal", "l2", "vat", "alpha_beta"]  # mixout and ema add nothing
        assert not any(part.requires_grad for part in parts.values())
        assert torch.equal(sum(parts.values()), out["loss"])
        assert parts["focal"] < 0  # images that are right already count less


def test_the_loss_without_a_term_is_the_tasks_part():
    for out in losses(trainer(build("finetune"), toy())):
        assert list(out["loss_parts"]) == ["task"]
        assert torch.equal(out["loss_parts"]["task"], out["loss"].detach())


def test_strategies_beside_each_other_and_objects_have_parts_of_their_own():
    l2 = STRATEGIES["l2"]
    task = type("task", (l2,), {})
    chain, other, third = Chain(l2(1.0), l2(0.0)), build("l2(weight=2.0)"), task(3.0)
    engine = trainer(chain, toy(), 1, train_data_loader=loader(n=8))
    for handler in (other, l2(0.5), third):
        handler.attach(engine)
    (out,) = losses(engine)
    parts = out["loss_parts"]
    assert list(parts) == ["task", "L2", "L2 2", "l2", "L2 3", "task 2"]
    one = parts["L2"].item()
    assert [parts[name].item() for name in list(parts)[1:]] == pytest.approx([one, 0, 2 * one, one / 2, 3 * one])
    assert torch.equal(sum(parts.values()), out["loss"])


@pytest.mark.parametrize("name", ["bss", "rkd", "delta", "co_tuning", "alpha_beta", "linear_dependency"])
def test_a_chain_shows_every_part_the_training_images(name):
    """``coral`` sends images of the target, and more of them, through the network."""

    def extra(*spec):
        net = toy()
        net.body[3].p = 0.0
        engine = trainer(bound(build(list(spec))), net, 1, train_data_loader=loader(n=4))
        seen = []
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: torch.manual_seed(3))
        engine.add_event_handler(
            IterationEvents.BACKWARD_COMPLETED, lambda e: seen.append(e.state.output["loss"].item())
        )
        engine.run()
        return seen[0]

    one = "alpha_beta(keep=delta)" if name == "alpha_beta" else name
    assert extra("coral", one) == pytest.approx(extra(one, "coral"), rel=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("l2_sp(alpha=-1)", "0 or more"),
        ("l1(weight=-1)", "0 or more"),
        ("discriminative(decay=0)", "above 0"),
        ("gradual_unfreeze(every=0)", "1 or more"),
        ("lp_ft(probe_epochs=-1)", "0 or more"),
        ("dann(hidden=0)", "1 or more"),
        ("afn(step=0)", "above 0"),
        ("rkd(angles=-1)", "0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec)


def test_build_takes_objects_and_chains():
    chain = build([STRATEGIES["l2"](weight=0.5), build("freeze_bn + ema")])
    assert isinstance(chain, Chain)
    assert [type(part).__name__ for part in chain] == ["L2", "FreezeBN", "EMA"]


def test_every_strategy_has_a_row_of_settings_and_is_called_as_its_file():
    assert sorted(SETTINGS) == sorted(STRATEGIES)
    for family, members in FAMILIES.items():
        for name, cls in members.items():
            assert cls.__module__ == f"medtl_monai.strategies.{strategies.FOLDERS[family]}.{name}"
            assert getattr(strategies, cls.__name__) is cls
            assert cls.cached in ("freezes", "beside", "")
            assert not set(cls.needs) - set(NEEDED)
    assert set(strategies.__all__) <= set(dir(strategies)) | {cls.__name__ for cls in STRATEGIES.values()}
    with pytest.raises(AttributeError, match="no attribute 'L3'"):
        strategies.L3  # noqa: B018


ONE = "from medtl_monai.strategies import Strategy\nclass One(Strategy): pass\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{ONE}class _Base(Strategy): pass\n", "one"),
        ("from medtl_monai.strategies import L2\nx = 1\n", "none"),
        (f"{ONE}class Two(Strategy): pass\n", "One, Two"),
        (f"{ONE}class Other: pass\n", "One, Other"),
        ("class Other: pass\n", "Other"),
    ],
)
def test_a_file_holds_one_strategy(text, found, tmp_path, monkeypatch):
    name = f"own_{len(text)}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    if found == "one":
        assert strategies._strategy_of(name).__name__ == "One"
    else:
        with pytest.raises(TypeError, match=f"{name} must have one public class, a strategy, got {found}:"):
            strategies._strategy_of(name)


def test_two_strategies_of_one_name_are_refused():
    l1, l2 = STRATEGIES["l1"], STRATEGIES["l2"]
    assert strategies._by_name({"a": {"l1": l1}, "b": {"l2": l2}}) == {"l1": l1, "l2": l2}
    with pytest.raises(TypeError, match="two strategies are called l1:"):
        strategies._by_name({"a": {"l1": l1}, "b": {"l1": l2}})
    with pytest.raises(TypeError, match="two strategies are called L2:"):
        strategies._by_name({"a": {"x": l2}, "b": {"y": l2}})


def test_what_derives_from_a_strategy_says_itself_whether_cached_features_go_with_it():
    own = type("Own", (STRATEGIES["freeze"],), {})
    assert (STRATEGIES["freeze"].cached, own.cached) == ("freezes", "")
