"""A plain PyTorch loop over a folder of slices: MobileNetV2, one-cycle AdamW, affine augmentation of whole batches.

    python benchmarks/peer.py DATA WEIGHTS [--seed 0]

What ``brain_peer.py`` compares the brain bundle with. ``WEIGHTS`` is torchvision's file of ImageNet weights;
the network is ours, which computes the same. All slices are read before the first epoch.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from bundle_runs import read_table
from monai.metrics import compute_roc_auc
from PIL import Image
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, one_hot

from medtl_monai.backbones import MobileNetV2
from medtl_monai.data import split_patients

SIZE, BATCH, LR, EPOCHS = 160, 32, 1e-3, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rows = read_table(args.data)
    classes = sorted({row["label"] for row in rows})
    items = [
        {"image": str(args.data / row["image"]), "label": classes.index(row["label"]), "patient": row["block"]}
        for row in rows
    ]
    parts = np.array(split_patients(items, val_fraction=0.2, seed=args.seed))
    images = torch.stack([read(item["image"]) for item in items])
    labels = torch.tensor([item["label"] for item in items])
    train, val = (torch.from_numpy(np.flatnonzero(parts == part)) for part in ("train", "val"))
    network = MobileNetV2(num_classes=len(classes))
    state = torch.load(args.weights, weights_only=True)
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("classifier")}, strict=False)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = len(train) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        network.train()
        for chosen in train[torch.randperm(len(train))].split(BATCH)[:steps]:
            loss = cross_entropy(network(normal(augmented(images[chosen]))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            scores = torch.cat([network(normal(images[chosen])).softmax(1) for chosen in val.split(BATCH)])
        accuracy = (scores.argmax(1) == labels[val]).float().mean()
        auc = compute_roc_auc(scores, one_hot(labels[val], len(classes)))
        print(f"epoch {epoch + 1}/{EPOCHS}: val_auc {auc:.4f}, val_accuracy {accuracy:.4f}", flush=True)


def read(path: str) -> torch.Tensor:
    """One slice ``(1, SIZE, SIZE)`` in ``[0, 1]``."""
    with Image.open(path) as image:
        return (
            torch.from_numpy(np.array(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))[None] / 255
        )


def augmented(x: torch.Tensor) -> torch.Tensor:
    """Slices mirrored, turned by up to 15 degrees, zoomed by up to 15% and moved by up to 5%."""
    angle, zoom, across, down = (2 * torch.rand(4, len(x)) - 1) * torch.tensor([[math.pi / 12], [0.15], [0.1], [0.1]])
    cos, sin, flip = (
        angle.cos() * (1 + zoom),
        angle.sin() * (1 + zoom),
        torch.where(torch.rand(len(x)) < 0.5, -1.0, 1.0),
    )
    matrix = torch.stack([cos * flip, -sin, across, sin * flip, cos, down], 1).view(-1, 2, 3)
    return grid_sample(x, affine_grid(matrix, list(x.shape), align_corners=False), align_corners=False)


def normal(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (x.expand(-1, 3, -1, -1) - mean) / std


if __name__ == "__main__":
    main()
