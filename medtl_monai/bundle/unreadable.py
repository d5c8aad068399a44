"""Inference and evaluation that go on where a file cannot be read, and name it at the end."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import Dataset
from PIL import Image

from ..data.read.limits import UnreadableError
from ..data.readable import raise_unreadable, why_not
from ..predictions import relative
from ..utils import MonaiEngine, UserError, write_table

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


class SomeLeftOutError(UserError):
    """The work is done, but for some of the images."""

    status = 3


class LeftOut:
    """The images of an inference or evaluation that could not be read: handler of an inference's evaluator.

    Args:
        folder: of the run, which gets ``failed.csv``.
        root: folder of the images, in which they are named.
        strict: stop at the first.
    """

    def __init__(self, folder: str | Path = "", root: str | Path = "", strict: bool = False) -> None:
        self.folder, self.root, self.strict = Path(folder), root, strict
        self._failed: dict[str, str] = {}
        self._count = 0

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator of :class:`EveryFile`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._stop_without_any)

    def rest(self, items: Sequence[dict[str, Any]], failed: Mapping[str, Exception], what: str) -> list[dict[str, Any]]:
        """The items without those whose image is in ``failed``, which are kept in mind.

        Args:
            items: with ``image``, and with ``other`` where two are compared.
            failed: error by image.
            what: what the items are, for a message.

        Raises:
            UserError: naming those in ``failed``, where the first one is to stop the run, or nothing is left.
        """
        left = [item for item in items if not any(str(item.get(key)) in failed for key in ("image", "other"))]
        if self.strict or not left:
            raise_unreadable(failed, len(items), what)
        self._failed |= {path: why_not(error, path) for path, error in failed.items()}
        self._count += len(items)
        return left

    def _collect(self, engine: MonaiEngine) -> None:
        for case in engine.state.batch:
            self._count += 1
            if case.get(_REASON):
                name = str(case["image"].meta["filename_or_obj"])
                if self.strict:
                    raise UnreadableError(name, case[_REASON])
                self._failed[name] = case[_REASON]

    def _stop_without_any(self, engine: Engine) -> None:
        if self._failed and len(self._failed) == self._count:
            self.tell()

    def tell(self) -> None:
        """Name them in the log and in ``failed.csv``, and end the run with a message, where there are any.

        Raises:
            UserError: naming some; its ``status`` is 3, or 1 where nothing could be read.
        """
        table = self.folder / "failed.csv"
        if not self._failed:
            table.unlink(missing_ok=True)  # of an earlier start of this run
            return
        for name, why in self._failed.items():
            _log.warning(f"left out: {name} ({why})")
        write_table(table, [["image", "reason"], *([relative(k, self.root), why] for k, why in self._failed.items())])
        shown = ", ".join(f"{name} ({why})" for name, why in list(self._failed.items())[:3])
        more = f" and {len(self._failed) - 3} more" if len(self._failed) > 3 else ""
        some = len(self._failed) < self._count
        raise (SomeLeftOutError if some else UserError)(
            f"{len(self._failed)} of {self._count} images cannot be read and are left out: {shown}{more}: repair or "
            f"remove them; {table} lists them."
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
