"""The end of a training in several processes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["leave_processes"]


def leave_processes(network: nn.Module) -> None:
    """Destroy the process group, if there is one, once Gloo's threads are done; ``network`` cannot be trained then.

    These threads let go of a finished exchange's tensors a little after the main thread went on, and abort the process
    if the interpreter is ending by then (https://github.com/pytorch/pytorch/issues/190489). Destroying the group waits
    for them, but only where nothing else holds the group, as ``network`` does.
    """
    if not isinstance(network, DistributedDataParallel):
        return
    network.reducer = network.logger = network.process_group = None  # type: ignore[assignment]
    torch.distributed.destroy_process_group()
