"""Inference that goes on where a file cannot be read, and names it at the end."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from monai.data import Dataset
from PIL import Image

from ..data.readable import why_not
from ..utils import MonaiEngine, UserError

__all__ = ["EveryFile", "LeftOut", "readable"]

_REASON = "unreadable"  # of an item: why its file cannot be read; empty for others

_log = logging.getLogger("medtl_monai")


class EveryFile(Dataset):
    """Prepared images, and of files that cannot be read another one with the reason, so that batches keep their form.

    Args:
        data: MONAI datalist items of images.
        transform: from an item to what the network sees.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable[..., Any]) -> None:
        super().__init__(data, transform)

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        try:
            return {**self.transform(item), _REASON: ""}
        except Exception as error:  # MONAI wraps the reader's
            cause = _cause(error)
            if cause is None:
                raise
        result = self._instead(item)
        name = str(item["image"])
        for key in [key for key in result if key.startswith("image")]:
            result[key].meta["filename_or_obj"] = name
        return {**result, _REASON: why_not(cause, name)}

    def _instead(self, item: Mapping[str, Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/ramp.png"
            Image.linear_gradient("L").save(path)
            return self.transform({key: path if key in ("image", "other") else value for key, value in item.items()})


class LeftOut:
    """The files of an inference that could not be read: handler of its evaluator."""

    def __init__(self) -> None:
        self._failed: dict[str, str] = {}
        self._count = 0

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator of :class:`EveryFile`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._stop_without_any)

    def _collect(self, engine: MonaiEngine) -> None:
        for case in engine.state.batch:
            self._count += 1
            if case.get(_REASON):
                self._failed[str(case["image"].meta["filename_or_obj"])] = case[_REASON]

    def _stop_without_any(self, engine: Engine) -> None:
        if self._failed and len(self._failed) == self._count:
            self.tell()

    def tell(self) -> None:
        """End the run with a message where there are any.

        Raises:
            UserError: naming them.
        """
        if not self._failed:
            return
        for name, why in self._failed.items():
            _log.warning(f"left out: {name} ({why})")
        shown = ", ".join(f"{name} ({why})" for name, why in list(self._failed.items())[:3])
        more = f" and {len(self._failed) - 3} more" if len(self._failed) > 3 else ""
        raise UserError(
            f"{len(self._failed)} of {self._count} images cannot be read and are left out: {shown}{more}: repair or "
            "remove them."
        )


def readable(case: Mapping[str, Any]) -> bool:
    """Whether the file of a case, as an evaluator gives it, could be read."""
    return not case.get(_REASON)


def _cause(error: BaseException | None) -> UserError | None:
    """The user's mistake that an error goes back to."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__ or error.__context__
    return None
