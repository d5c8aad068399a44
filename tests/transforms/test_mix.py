"""Mixup and cutmix."""

import pytest
import torch

from medtl_monai.transforms import MixBatch
from medtl_monai.utils import UserError


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_in_the_share_of_the_pixels(kind, dims):
    torch.manual_seed(0)
    label = torch.tensor([0, 1, 2, 0])
    image = label.view(-1, 1, *[1] * dims).float().expand(-1, 1, *[20] * dims)
    changed = False
    for _ in range(20):
        mixed, shares = MixBatch(3, kind=kind, alpha=1.0)(image, label)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
        expected = (shares * torch.arange(3)).sum(1)  # images are their labels, so their means are the mean labels
        torch.testing.assert_close(mixed.flatten(1).mean(1), expected, atol=1e-4, rtol=1e-4)
        changed |= not torch.equal(mixed, image)
    assert changed
    kept, shares = MixBatch(3, kind=kind, probability=0.0)(image, label)
    assert torch.equal(kept, image)
    assert torch.equal(shares.argmax(1), label)


def test_impossible_mixtures_are_refused():
    with pytest.raises(UserError, match="kind mixup or cutmix"):
        MixBatch(2, kind="cutup")
    with pytest.raises(UserError, match="label maps cannot be mixed"):
        MixBatch(2)(torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
