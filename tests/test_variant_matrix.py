"""Every variant on every backbone: it trains, is saved, copied and wrapped, or says why it cannot be applied.

``python tests/test_variant_matrix.py`` writes the whole matrix to ``benchmarks/results/variants/matrix.json``, from
which ``docs/variants.md`` is rendered.
"""

import copy
import io
import json
import sys

import pytest
import torch
from conftest import ROOT

from medtl_monai.backbones import anatomy, build
from medtl_monai.utils import UserError, write_json
from medtl_monai.variants import ADAPTERS, DROPOUTS, INITS, NORMS, POOLINGS, apply, use_domain

RESULT = ROOT / "benchmarks" / "results" / "variants" / "matrix.json"
VARIANTS = {
    **{f"norm {name}": {"norm": name} for name in NORMS},
    **{f"dropout {name}": {"dropout": {"name": name, "p": 0.3}} for name in DROPOUTS},
    **{f"init {name}": {"init": name} for name in INITS if name not in ("zeros", "constant")},
    "act leakyrelu": {"act": "leakyrelu"},
    **{f"pooling {name}": {"pooling": name} for name in POOLINGS},
    **{f"adapter {name}": {"adapter": name} for name in ADAPTERS},
}
KINDS = (  # one size of each kind
    "lenet5", "alexnet", "vgg11_bn", "googlenet", "inception_v3", "inception_v4", "inception_resnet_v2", "mobilenet_v2",
    "mobilenet_v3_small", "efficientnet_lite0", "efficientnet_b0", "resnet18", "resnet18_v2", "densenet121",
    "seresnet50", "unet_mobilenet_v2", "unet", "basicunet", "flexibleunet",
)  # fmt: skip
DOMAINS = [0, 1, 1]  # of three images
SAMPLE = ("lenet5", "resnet18")  # the others are slow


def make(network, variant, dims=2):
    net = build(network, spatial_dims=dims, in_channels=1, num_classes=3)
    return apply(net, variant, blocks=[block.prefixes[-1] for block in anatomy(net).blocks[:-1]])


def check(network, variant, dims=2):
    """The contract; returns ``yes`` or why the variant does not suit the network."""
    torch.manual_seed(0)
    side = {"inc": 107, "ale": 96}.get(network[:3], 64)  # the least that leaves each norm more than a pixel
    x = torch.randn(3, 1, *[side] * dims)
    try:
        net = make(network, variant, dims)
    except UserError as error:
        return str(error)
    use_domain(net, DOMAINS)
    for module in net.modules():  # a tenth of one batch's statistics lets deep random networks overflow in evaluation
        if isinstance(getattr(module, "momentum", None), float):
            module.momentum = 1.0
    output = net.train()(x)
    (output[0] if isinstance(output, (tuple, list)) else output).square().sum().backward()
    gradients = [p.grad for p in net.parameters() if p.requires_grad and p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    twin, file = make(network, variant, dims), io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    use_domain(twin, DOMAINS)
    expected = net.eval()(x)
    assert expected.shape == ((3, 3, *x.shape[2:]) if "unet" in network else (3, 3))
    assert expected.isfinite().all()
    assert torch.equal(twin.eval()(x), expected)
    assert torch.equal(copy.deepcopy(net)(x), expected)
    return "yes"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("network", SAMPLE)
def test_a_variant_trains_is_saved_and_copied(network, variant):
    answer = check(network, VARIANTS[variant])
    assert answer == json.loads(RESULT.read_text())[network][variant]


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("variant", ["norm group", "dropout dropblock", "adapter lora", "act leakyrelu"])
def test_variants_in_other_dimensions(variant, dims):
    assert check("mobilenet_v2", VARIANTS[variant], dims) == "yes"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("network", [name for name in KINDS if name not in SAMPLE])
def test_a_variant_on_every_other_backbone(network, variant):
    assert check(network, VARIANTS[variant]) == json.loads(RESULT.read_text())[network][variant]


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    path = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("init")])
def test_variants_are_wrapped_for_several_processes(process_group, variant):
    net = make("resnet18", VARIANTS[variant])  # which takes every variant
    use_domain(net, DOMAINS)
    x = torch.randn(3, 1, 64, 64)
    expected = net.eval()(x)
    wrapped = torch.nn.parallel.DistributedDataParallel(net, find_unused_parameters="norm category" in variant)
    assert torch.equal(wrapped(x), expected)
    wrapped.train()(x).square().sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("init")])
@pytest.mark.parametrize("training", [False, True])
def test_variants_are_compiled_as_one_graph(variant, training):
    torch._dynamo.reset()
    outputs = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = make("resnet18", VARIANTS[variant]).train(training)
        use_domain(net, 1)
        x = torch.randn(2, 1, 64, 64)
        if compiled:  # the backend, which makes code of the graph, is not this project's
            net = torch.compile(net, backend="eager", fullgraph=True)
        torch.manual_seed(1)  # of dropout
        outputs.append(net(x))
    torch.testing.assert_close(*outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("init")])
def test_variants_are_exported_to_onnx(variant, tmp_path):
    import onnx
    from onnx.reference import ReferenceEvaluator

    net, x = make("resnet18", VARIANTS[variant]).eval(), torch.randn(1, 1, 64, 64)
    torch.onnx.export(net, (x,), str(tmp_path / "net.onnx"), dynamo=False, input_names=["image"])
    (found,) = ReferenceEvaluator(onnx.load(tmp_path / "net.onnx")).run(None, {"image": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(x).detach(), atol=1e-4, rtol=1e-3)


if __name__ == "__main__":
    chosen = sys.argv[1:] or KINDS
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for backbone in chosen:
        found[backbone] = {name: check(backbone, variant) for name, variant in VARIANTS.items()}
        print(backbone, sum(answer == "yes" for answer in found[backbone].values()), "of", len(VARIANTS), flush=True)
        write_json(RESULT, found)
