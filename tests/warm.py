"""Runs ``python -m monai.bundle`` again and again without importing torch and MONAI each time, for the tests.

As a script it imports them once and forks for every line on its standard input, the JSON of a request. Each fork ends
as Python itself would: by ``sys.excepthook`` and its exit status.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 600  # seconds


class Warm:
    """The client: starts the script when it is first needed."""

    def __init__(self):
        self.process = None

    def __call__(self, module, words, cwd, env):
        """``python -m module *words``; the completed process."""
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            command = [sys.executable, __file__]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / name) for name in ("stdout", "stderr")]
            print(json.dumps([module, list(words), str(cwd), dict(env), *files]), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
            if not answer:  # it was killed from outside, say: the next run starts another
                ended = self.process
                self.close()
                raise RuntimeError(f"the prepared process ended with {ended.returncode} in: {' '.join(words)}")
            code = int(answer)
            output, errors = (Path(file).read_text(errors="replace") for file in files)
        return subprocess.CompletedProcess([sys.executable, "-m", module, *words], code, output, errors)

    def close(self):
        """Let the script end."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError):  # of one that is gone
                process.stdin.close()
            process.wait()
            process.stdout.close()


def _import_all():
    for name in (
        *("ignite.engine", "ignite.handlers", "ignite.metrics", "matplotlib.pyplot", "monai.bundle", "monai.data"),
        *("monai.engines", "monai.handlers", "monai.inferers", "monai.transforms", "nibabel", "PIL.Image", "pydicom"),
        *("torch.utils.tensorboard", "medtl_monai.bundle", "medtl_monai.figures"),
    ):
        importlib.import_module(name)


def _child(request):
    module, words, cwd, env, *files = request
    signal.alarm(LIMIT)
    for number, file in enumerate(files, 1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *words]
    sys.path[0] = str(cwd)  # as -m has it
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _serve():
    reply = os.dup(1)
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            os.close(reply)  # so that the end of this script is seen
            return json.loads(line)
        _, status = os.waitpid(pid, 0)
        os.write(reply, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return None


if __name__ == "__main__":
    _import_all()
    request = _serve()
    if request is not None:
        _child(request)
