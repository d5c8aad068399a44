"""Processes that take turns on one machine, so that its noise slows all alike; used by the scripts beside."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TURN = 10.0  # seconds


class Run:
    """A training that is halted but in its turns.

    Attributes:
        seconds: of its turns.
        epochs: for each finished one, the seconds until then and what its line of the log says of the validation.
        done: whether it has ended.

    Raises:
        SystemExit: it failed.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.seconds, self.epochs, self.log = 0.0, [], log
        with log.open("w") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        self._signal(signal.SIGSTOP)

    @property
    def done(self) -> bool:
        return self.process.poll() is not None

    def turn(self, accuracy: float = 2.0) -> None:
        """Let it run for a while, at most until an epoch reaches this validation accuracy."""
        self._signal(signal.SIGCONT)
        began = time.perf_counter()
        while not self.done and time.perf_counter() < began + TURN:
            time.sleep(0.1)
            self._read(self.seconds + time.perf_counter() - began)
            if self.epochs and self.epochs[-1]["val_accuracy"] >= accuracy:
                break
        self.seconds += time.perf_counter() - began
        self._signal(signal.SIGSTOP)
        if self.process.poll():
            raise SystemExit(f"a training failed; its log ends: {self.log.read_text()[-500:]}")

    def stop(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _read(self, seconds: float) -> None:
        lines = re.findall(r"epoch \d+/\d+: ([^\r\n]*val_accuracy \d\.\d+)", self.log.read_text())  # beside bars
        for line in lines[len(self.epochs) :]:
            values = {name: float(value) for name, value in re.findall(r"(val_\w+) (\d+\.\d+)", line)}
            self.epochs.append({"seconds": round(seconds, 1), **values})

    def _signal(self, number: int) -> None:
        if not self.done:
            os.killpg(self.process.pid, number)
