"""From a loader's batch to the network's input."""

import torch

from medtl_monai.transforms import AugmentBatch, MixBatch, PrepareBatch


def test_prepare_batch_normalizes_per_channel_and_keeps_labels():
    image, label = PrepareBatch([0.5, 0.0], [0.5, 2.0])({"image": torch.ones(2, 2, 3, 3), "label": [1, 0]})
    assert image[0, :, 0, 0].tolist() == [1.0, 0.5]
    assert label.tolist() == [1, 0]


def test_prepare_batch_without_labels_gives_none():
    assert PrepareBatch([0.0], [1.0])({"image": torch.ones(1, 1, 2, 2)})[1] is None


def test_image_and_mask_are_augmented_alike():
    torch.manual_seed(0)
    mask = (torch.rand(4, 1, 12, 12) > 0.5).long() * 3
    mask = torch.nn.functional.interpolate(mask.float(), scale_factor=8, mode="nearest").long()
    augment = AugmentBatch(rotate=90, zoom=0.3, gamma=0, contrast=0, brightness=0, noise=0)
    image, label = PrepareBatch([0.0], [1.0], augment)({"image": mask.float(), "label": mask})
    assert label.dtype == torch.int64
    assert set(label.unique().tolist()) <= {0, 3}
    inside = (image - image.round()).abs() < 1e-4  # away from edges both samplings agree
    assert inside.float().mean() > 0.5
    assert torch.equal(image[inside].round().long(), label[inside])


def test_mixing_stands_between_augmentation_and_normalization():
    prepare = PrepareBatch([1.0], [2.0], mix=MixBatch(2))
    image, label = prepare({"image": torch.ones(4, 1, 4, 4), "label": torch.tensor([0, 1, 0, 1])})
    assert torch.equal(image, torch.zeros(4, 1, 4, 4))
    assert label.shape == (4, 2)
