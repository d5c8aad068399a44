"""A training step that keeps freed memory, as the bundles do, against one that gives it back to the kernel.

EfficientNet-Lite0, partially frozen, on 32 images of 160 x 160 pixels; Linux with glibc.
"""

import ctypes

import torch
from timing import compare
from torch.nn.functional import cross_entropy

from medtl_monai.backbones import build
from medtl_monai.bundle.start import keep_freed_memory
from medtl_monai.strategies import build as build_strategy


def give_back_freed_memory() -> None:
    """The limits that glibc arrives at by itself."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 32 << 20)
    libc.mallopt(-1, 64 << 20)


def measure(repeats: int = 15) -> dict:
    network = build_strategy("partial_freeze").prepare(build("efficientnet_lite0", in_channels=1, num_classes=3))
    network = network.to(memory_format=torch.channels_last).train()
    images, labels = torch.rand(32, 1, 160, 160), torch.arange(32) % 3

    def step() -> None:
        network.zero_grad()
        cross_entropy(network(images), labels).backward()

    def ours() -> None:
        keep_freed_memory()
        step()

    def usual() -> None:
        give_back_freed_memory()
        step()

    return {"a step": compare(ours, usual, repeats=repeats, bar=1.1)}
