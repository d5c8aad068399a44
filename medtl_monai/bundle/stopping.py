"""How a run that cannot go on says so: in one sentence, after a mistake, on a full disk, at Ctrl-C or SIGTERM."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from types import FrameType, TracebackType

from ..utils import UserError
from .workflow import running

__all__ = ["Stopped", "end_in_a_sentence"]

_OF_THE_DISK = {
    errno.ENOSPC: "there is no room left: make room",
    errno.EFBIG: "it would be too large: make room",
    errno.EDQUOT: "the quota is used up: make room",
    errno.EROFS: "it can only be read: give another folder",
    errno.EACCES: "this user may not: change its permissions, or give another folder",
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "something else is in its place: move it away"),
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
}
_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Stopped(SystemExit):
    """The user, or the machine, ended the run."""


def end_in_a_sentence() -> None:
    """From now on errors that the user can put right, and signals, end the process with one sentence."""
    sys.excepthook = _print
    main = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != main:  # one that loads images: the signal was for all, and the first process ends it,
            signal.signal(number, signal.SIG_DFL)  # by another one if need be
            return
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        folder = getattr(running(), "opened", None)
        after = f"the same command with --output_dir {folder} goes on" if folder else "nothing was written"
        print(f"\nstopped by {name}: {after}", file=sys.stderr, flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # at which torch would raise for processes that the signal ended
        raise Stopped(_STATUS[signal.Signals(number)])

    default = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    for number, untouched in default.items():  # those that a server has set are its own matter
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) == untouched:
            signal.signal(number, stop)


def _print(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:  # MONAI wraps errors: look along the chain of causes
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Stopped):  # in whose wake something else failed
            raise SystemExit(cause.code)
        sentence = _sentence(_of_a_loader(cause) or cause)
        if sentence is not None:
            print(f"error: {sentence}", file=sys.stderr)
            raise SystemExit(getattr(cause, "status", 1))
        cause = cause.__cause__ or cause.__context__
    sys.__excepthook__(kind, error, trace)


def _of_a_loader(error: BaseException) -> BaseException | None:
    """The error of a process that loads images, of which torch hands on the text alone."""
    text = str(error)
    if not text.startswith("Caught ") or "in DataLoader worker process" not in text:
        return None
    mistake = re.search(r"^medtl_monai\.[\w.]+Error: (.+)$", text, re.MULTILINE)
    if mistake:
        return UserError(mistake[1])
    system = re.search(r"^\w+Error: \[Errno (\d+)\] [^:\n]+(?:: '(.+)')?$", text, re.MULTILINE)
    return OSError(int(system[1]), os.strerror(int(system[1])), system[2]) if system else None


def _sentence(error: BaseException) -> str | None:
    """What is said of an error that the user can put right; ``None`` of any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        where = error.filename or "a file of this run"
        return f"{where} cannot be written; {_OF_THE_DISK[error.errno]}, and the same command goes on."
    return None
