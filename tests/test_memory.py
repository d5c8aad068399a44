"""What the C library does with memory that is freed."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from medtl_monai.bundle.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(10, 1024, 1024) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first, _, third = work(), work(), work()
print(first, third)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands freed memory back so eagerly")
@pytest.mark.parametrize("keep", [True, False])
def test_kept_memory_is_not_cleared_anew(keep):
    done = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True)
    first, third = map(int, done.stdout.split())
    assert first > 0
    assert (third < 0.1 * first) == keep
