import sys

import pytest
import torch
from monai.data import MetaTensor

from medtl_monai.backbones import build
from medtl_monai.bundle import load_network
from medtl_monai.inference import RUNTIMES, Exported
from medtl_monai.model import Model
from medtl_monai.utils import UserError
from medtl_monai.variants import apply

pytestmark = pytest.mark.filterwarnings("ignore:.*legacy TorchScript")


def random_network(name, **options):
    """With statistics and a head that are not those of a new network."""
    torch.manual_seed(0)
    network = build(name, in_channels=1, num_classes=3, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for _ in range(2):
            network(torch.rand(4, 1, *[32] * options.get("spatial_dims", 2)))
    return network.eval()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet18", {"spatial_dims": 3, "widen_factor": 0.125}), ("unet_efficientnet_lite0", {})],
)
def test_another_runtime_gives_torchs_values_at_any_size_of_image_and_batch(name, options, runtime):
    network = random_network(name, **options)
    other = Exported(network, runtime)
    for batch, side in ((3, 32), (1, 32), (2, 64)):
        image = torch.rand(batch, 1, *[side] * options.get("spatial_dims", 2))
        with torch.no_grad():
            want = network(image)
        assert want.std() > 1e-3
        torch.testing.assert_close(other(image), want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def test_what_an_image_knows_of_its_space_stays_with_the_output():
    image = MetaTensor(torch.rand(1, 1, 64, 64), affine=2 * torch.eye(4))
    output = Exported(random_network("efficientnet_lite0"), "onnxruntime")(image)
    assert isinstance(output, MetaTensor)
    torch.testing.assert_close(output.affine, image.affine)


def test_a_runtime_that_is_not_installed_or_not_known_is_named(monkeypatch, tmp_path):
    model = Model(
        task="classification", classes=["a", "b"], backbone="efficientnet_lite0", image_size=64, mean=[0.5], std=[0.5]
    )
    torch.save({"model": model.network().state_dict()}, tmp_path / "m.pt")
    for runtime, device in (("tensorrt", "cpu"), ("openvino", "cuda")):
        with pytest.raises(UserError, match=f"runtime must be torch, or on the CPU .* got '{runtime}' on {device}"):
            load_network(model, str(tmp_path / "m.pt"), device=device, runtime=runtime)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"needs openvino: pip install 'medtl_monai\[openvino\]'"):
        load_network(model, str(tmp_path / "m.pt"), device="cpu", runtime="openvino")


def test_networks_that_cannot_be_exported_are_refused():
    class Odd(torch.nn.Module):
        def forward(self, image):
            return torch.special.i0e(image)

    with pytest.raises(UserError, match="has no ONNX form .*take torch"):
        Exported(Odd().eval(), "onnxruntime")(torch.rand(1, 1, 8, 8))
    network = apply(random_network("efficientnet_lite0"), {"norm": {"name": "domain", "domains": ["a", "b"]}})
    with pytest.raises(UserError, match="norm domain"):
        Exported(network, "openvino")
