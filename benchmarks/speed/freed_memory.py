"""Training steps while freed memory is kept, as in the bundles, against glibc's own way; each in a process of its own.

Batches of 16 slices of 160 x 160 pixels. glibc hands large arrays back to the system, which clears their pages anew in
the next step.
"""

from multiprocessing import get_context

import torch
from timing import compare
from torch import nn

from medtl_monai.backbones import build
from medtl_monai.bundle.memory import keep_freed_memory


def measure(repeats: int) -> dict:
    found = {}
    for name in ("efficientnet_lite0", "unet_efficientnet_lite0"):
        with Worker(name, True) as ours, Worker(name, False) as reference:
            found[name] = compare(ours.step, reference.step, repeats=repeats, bar=1.1)
    return found


class Worker:
    """A process that trains one network, a step whenever it is asked."""

    def __init__(self, name: str, keep: bool) -> None:
        spawn = get_context("spawn")
        self.ours, theirs = spawn.Pipe()
        self.process = spawn.Process(target=train, args=(name, keep, theirs), daemon=True)

    def __enter__(self) -> "Worker":
        self.process.start()
        for _ in range(3):
            self.step()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()

    def step(self) -> None:
        self.ours.send(None)
        self.ours.recv()


def train(name: str, keep: bool, pipe) -> None:
    if keep:
        keep_freed_memory()
    net = build(name, in_channels=1, num_classes=4).to(memory_format=torch.channels_last).train()
    image = torch.rand(16, 1, 160, 160).contiguous(memory_format=torch.channels_last)
    label = torch.randint(4, image[:, 0].shape if name.startswith("unet") else (len(image),))
    optimizer = torch.optim.AdamW(net.parameters())
    while True:
        pipe.recv()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(image), label).backward()
        optimizer.step()
        pipe.send(None)
