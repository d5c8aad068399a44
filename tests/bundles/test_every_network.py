"""Every backbone goes to the end: trained, scored, drawn, evaluated and used."""

import pytest
import torch

from medtl_monai import figures
from medtl_monai.backbones import BACKBONES, anatomy, build
from medtl_monai.data import make_brain_cohort

SIDE = {name: 96 if name.startswith(("inception", "googlenet")) else 64 for name in BACKBONES}


@pytest.fixture(scope="module")
def brain(make_cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "brain"
    return make_cli("brain_mri_classification", make_brain_cohort(folder, patients=12, slices=(1, 1), size=64))


@pytest.mark.parametrize("name", BACKBONES)
def test_heat_maps_have_the_images_size(name):
    with torch.device("meta"):  # its weights are of no matter here, and take long to draw
        network = build(name, in_channels=1, num_classes=2)
    network = network.to_empty(device="cpu").eval()
    for tensor in network.state_dict().values():
        tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    image = torch.rand(1, 1, SIDE[name], SIDE[name])
    layer = figures.last_map(network, [block.prefixes[-1] for block in anatomy(network).blocks[:-1]], image)
    assert layer is not None
    heat = figures.grad_cam(network, layer, image, [1])
    assert heat.shape == (1, SIDE[name], SIDE[name])
    assert ((heat >= 0) & (heat <= 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_it_trains_is_evaluated_and_used(brain, tmp_path, name):
    size = ("--image_size", SIDE[name])
    brain.train(tmp_path / "train", *size, "--backbone", name, "--weights", "none", "--batch_size", 4)
    assert (tmp_path / "train" / "metrics.json").is_file()
    assert (tmp_path / "train" / "figures" / "val_worst_cases.png").is_file()
    checkpoint = tmp_path / "train" / "checkpoints" / "best.pt"
    for config in ("evaluate", "inference"):
        done = brain(config, "--checkpoint", checkpoint, "--output_dir", tmp_path / config)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / config / "predictions.csv").is_file()
    checkpoint.unlink()  # some are large
