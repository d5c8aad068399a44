"""Variants: each does what its paper says, keeps what was learnt, and changes nothing else."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from medtl_monai import variants
from medtl_monai.utils import UserError
from medtl_monai.variants import INITS, NORMS, apply, convert_norm
from medtl_monai.variants.dropout import drop_block, drop_path, spatial_dropout
from medtl_monai.variants.norm import BatchRenorm, CategoricalNorm, DomainBatchNorm, StochNorm


def small(dims=2):
    """Two blocks and a head, with statistics and an affine that are not the initial ones."""
    conv, norm = [(nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d)][dims - 1]
    torch.manual_seed(0)
    net = nn.Sequential()
    net.stem = nn.Sequential(conv(1, 8, 3, padding=1), norm(8), nn.ReLU())
    net.body = nn.Sequential(conv(8, 8, 3, padding=1, groups=2), norm(8), nn.ReLU())
    net.head = nn.Sequential([nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d][dims - 1](1))
    net.head.extend([nn.Flatten(), nn.Linear(8, 2)])
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def images(dims=2, n=6):
    return torch.randn(n, 1, *[8] * dims, generator=torch.Generator().manual_seed(1))


BLOCKS = ("stem", "body")


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", NORMS)
def test_every_norm_keeps_the_learnt_affine_trains_and_is_saved(name, dims):
    net, x = small(dims), images(dims)
    weight, before = net.stem[1].weight.detach().clone(), net.eval()(x)
    convert_norm(net, name)
    if name != "none":
        torch.testing.assert_close(net.stem[1].weight, weight)
    if name in ("batch", "renorm", "stoch", "frozen", "domain", "category"):
        torch.testing.assert_close(net(x), before)  # in evaluation they are batch norm
    variants.use_domain(net, [0, 0, 1, 1, 1, 0])
    net.train()(x).sum().backward()
    assert net.stem[0].weight.grad is not None
    twin = convert_norm(small(dims), name)
    twin.load_state_dict(net.state_dict())
    variants.use_domain(twin, [0, 0, 1, 1, 1, 0])
    torch.testing.assert_close(twin.eval()(x), net.eval()(x))
    torch.testing.assert_close(copy.deepcopy(net)(x), net(x))


def test_batch_renorm_is_the_papers_formula():
    x = torch.randn(5, 3, 4, 4) * 2 + 1
    layer = BatchRenorm(3, r_max=1.1, d_max=0.2)
    layer.running_mean.copy_(torch.tensor([0.0, 1.0, 3.0]))
    layer.running_var.copy_(torch.tensor([1.0, 4.0, 9.0]))
    a = x.numpy()
    mean, sigma = a.mean((0, 2, 3)), np.sqrt(a.var((0, 2, 3)) + layer.eps)
    old_mean, old_sigma = layer.running_mean.numpy().copy(), np.sqrt(layer.running_var.numpy() + layer.eps)
    r, d = np.clip(sigma / old_sigma, 1 / 1.1, 1.1), np.clip((mean - old_mean) / old_sigma, -0.2, 0.2)
    column = (slice(None), None, None)
    expected = (a - mean[column]) / sigma[column] * r[column] + d[column]
    np.testing.assert_allclose(layer.train()(x).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(layer.running_mean, 0.9 * old_mean + 0.1 * mean, atol=1e-5)


def test_stochastic_normalization_lies_between_batch_and_running_statistics():
    x, reference = torch.randn(8, 4, 5), nn.BatchNorm1d(4)
    torch.testing.assert_close(StochNorm(4, p=0)(x), reference(x))
    layer = StochNorm(4, p=1)
    torch.testing.assert_close(layer(x), copy.deepcopy(layer).eval()(x), atol=1, rtol=1)
    torch.testing.assert_close(StochNorm(4, p=1)(x), nn.BatchNorm1d(4).eval()(x))
    torch.testing.assert_close(layer.running_mean, reference.running_mean)


def test_frozen_norm_does_not_move():
    net = convert_norm(small(), "frozen")
    before = {k: v.clone() for k, v in net.stem[1].state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1.0)
    net.train()(images()).sum().backward()
    optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in net.stem[1].state_dict().items())


def test_each_domain_has_its_own_statistics():
    layer = DomainBatchNorm(2, domains=3)
    x = torch.randn(6, 2, 4, 4)
    x[3:] += 5
    host = nn.Sequential(layer)
    variants.use_domain(host, torch.tensor([0, 0, 0, 2, 2, 2]))
    y = host(x)
    torch.testing.assert_close(y[3:], nn.BatchNorm2d(2)(x[3:]))
    assert layer.running_mean.abs().max() < 0.2
    assert layer.others[1].running_mean.min() > 0.3
    torch.testing.assert_close(layer.others[0].running_mean, torch.zeros(2))
    variants.use_domain(host, 0)
    host.eval()
    torch.testing.assert_close(host(x), nn.functional.batch_norm(x, layer.running_mean, layer.running_var))


def test_an_unknown_domain_is_the_mean_over_the_known_in_evaluation_and_an_error_in_training():
    layer, x = DomainBatchNorm(2, domains=["Leeds", "Lyon"]), torch.randn(5, 2, 4, 4)
    nn.init.normal_(layer.bias)
    layer.others[0].running_mean.fill_(3.0)
    host = nn.Sequential(layer).eval()
    assert variants.domains_of(host) == ("Leeds", "Lyon")
    known = []
    for name in ("Leeds", "Lyon"):
        variants.use_domain(host, name)
        known.append(host(x))
    assert not torch.equal(*known)
    variants.use_domain(host, ["Lyon", "Oslo", None, "Leeds", ""])
    mean = (known[0] + known[1]) / 2
    torch.testing.assert_close(host(x), torch.stack([known[1][0], mean[1], mean[2], known[0][3], mean[4]]))
    torch.testing.assert_close(nn.Sequential(DomainBatchNorm(2)).eval()(x), nn.BatchNorm2d(2).eval()(x))
    with pytest.raises(UserError, match="a training image is of none of the domains"):
        host.train()(x)


def test_a_domain_with_one_value_is_normalized_by_its_running_statistics():
    layer, x = DomainBatchNorm(2), torch.randn(3, 2, 1, 1)
    layer.others[0].running_mean.fill_(3.0)
    variants.use_domain(layer, [0, 0, 1])
    y = layer.train()(x)
    torch.testing.assert_close(y[:2], nn.BatchNorm2d(2)(x[:2]))
    torch.testing.assert_close(y[2], (x[2] - 3) / (1 + layer.eps) ** 0.5)
    assert torch.equal(layer.others[0].running_mean, torch.full((2,), 3.0))


def test_domains_start_from_weights_without_domains():
    net, x = small(), images()
    before = net.eval()(x)
    domains = convert_norm(small(), "domain", domains=2)
    domains.load_state_dict(net.state_dict())
    for domain in (0, 1):
        variants.use_domain(domains, domain)
        torch.testing.assert_close(domains.eval()(x), before)


def test_regions_have_their_own_affine():
    layer = CategoricalNorm(1, regions=2).eval()
    x, mask = torch.randn(1, 1, 2, 2), torch.tensor([[[[1.0, 0], [0, 0]], [[0, 1], [1, 1]]]])
    with torch.no_grad():
        layer.region_weight[0], layer.region_bias[0] = 1.0, 3.0
    with variants.use_regions(layer, mask):
        y = layer(x)
    normal = x / (1 + layer.eps) ** 0.5
    torch.testing.assert_close(y[0, 0, 0, 0], 2 * normal[0, 0, 0, 0] + 3)
    torch.testing.assert_close(y[0, 0, 1], normal[0, 0, 1])
    torch.testing.assert_close(layer(x), normal)


def test_adabn_takes_the_statistics_of_the_other_images_and_nothing_else():
    layer = nn.BatchNorm2d(3)
    nn.init.uniform_(layer.weight)
    weight, net = layer.weight.detach().clone(), nn.Sequential(layer).eval()
    batches = [torch.randn(4, 3, 8, 8) * 3 + 2 for _ in range(5)]
    variants.adapt_batch_norm(net, batches)
    np.testing.assert_allclose(layer.running_mean, np.mean([b.numpy().mean((0, 2, 3)) for b in batches], 0), rtol=1e-4)
    np.testing.assert_allclose(
        layer.running_var, np.mean([b.numpy().var((0, 2, 3), ddof=1) for b in batches], 0), rtol=1e-4
    )
    assert torch.equal(layer.weight, weight)
    assert (layer.training, layer.momentum) == (False, 0.1)
    kept = layer.running_mean.clone()
    with pytest.raises(UserError, match="got none"):
        variants.adapt_batch_norm(net, [])
    assert torch.equal(layer.running_mean, kept)


def test_adabn_measures_the_layers_that_are_asked_for_behind_the_others_as_they_are():
    held, measured = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    held.running_mean.fill_(1.0), held.running_var.fill_(4.0)
    x = torch.randn(4, 3, 8, 8)
    variants.adapt_batch_norm(nn.Sequential(held, measured), [x], layers=[measured])
    assert (held.running_mean == 1).all()
    assert (held.running_var == 4).all()
    assert int(held.num_batches_tracked) == 0
    seen = (x.numpy() - 1) / np.sqrt(4 + held.eps)
    np.testing.assert_allclose(measured.running_mean, seen.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(measured.running_var, seen.var((0, 2, 3), ddof=1), rtol=1e-4)


@pytest.mark.parametrize("name", ["standard", "alpha", "spatial", "dropblock", "stochastic_depth"])
def test_dropout_acts_in_training_alone_and_within_monte_carlo(name):
    net, x = small(), images()
    before = net.eval()(x)
    keys = list(net.state_dict())
    apply(net, {"dropout": {"name": name, "p": 0.5}}, blocks=["body"])
    assert list(net.state_dict()) == keys
    torch.testing.assert_close(net(x), before)
    torch.testing.assert_close(copy.deepcopy(net)(x), before)
    with variants.monte_carlo(net):
        assert not torch.equal(net(x), net(x))
    torch.testing.assert_close(net(x), before)
    convert_norm(net, "frozen").train()
    assert not torch.equal(net(x), net(x))


def test_a_rate_is_enough_and_sets_the_dropout_layers_that_are_there():
    net = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.1), nn.Linear(4, 2))
    assert apply(net, {"dropout": 0.7})[1].p == 0.7


def test_dropouts_keep_the_mean_and_drop_what_they_should():
    torch.manual_seed(0)
    x = torch.ones(400, 16, 12, 12)
    channels = spatial_dropout(x, 0.25)
    assert set(channels.flatten(2).std(-1).unique().tolist()) == {0.0}
    assert (channels[:, :, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert channels.mean().item() == pytest.approx(1, abs=0.03)
    blocks = drop_block(x, 0.2, block=3)
    assert (blocks == 0).float().mean().item() == pytest.approx(0.18, abs=0.02)  # cubes overlap
    assert blocks.mean().item() == pytest.approx(1, abs=1e-4)
    zeros = (blocks == 0).float()
    windows = nn.functional.avg_pool2d(zeros, 3, stride=1) == 1  # whole cubes
    covered = nn.functional.max_pool2d(nn.functional.pad(windows.float(), [2] * 4), 3, stride=1)
    torch.testing.assert_close(covered, zeros)
    path = drop_path(x, 3 * x, 0.4)
    assert path.unique().tolist() == pytest.approx([1.0, 1 + 2 / 0.6])
    assert path.mean().item() == pytest.approx(3, abs=0.3)


FANS = (32 * 9, 64 * 9)  # of a convolution from 32 to 64 channels, 3 x 3
STD = {
    "normal": 0.02, "truncated_normal": 0.02, "lecun_normal": FANS[0] ** -0.5, "xavier_normal": (2 / sum(FANS)) ** 0.5,
    "he_normal": (2 / FANS[0]) ** 0.5,
}  # fmt: skip
BOUND = {
    "uniform": 0.05, "lecun_uniform": (3 / FANS[0]) ** 0.5, "xavier_uniform": (6 / sum(FANS)) ** 0.5,
    "he_uniform": (6 / FANS[0]) ** 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", INITS)
def test_every_initialization_has_the_distribution_that_its_source_says(name):
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 64, 3)
    variants.initialize(layer, name)
    w = layer.weight.detach().double().numpy().ravel()
    assert not layer.bias.detach().any()
    flags = INITS[name]
    if name in STD:
        reference = stats.norm(0, STD[name])
        if name == "truncated_normal":
            sigma = STD[name] / stats.truncnorm(-2, 2).std()
            reference = stats.truncnorm(-2, 2, scale=sigma)
            assert w.std() == pytest.approx(STD[name], rel=0.02)
        assert stats.kstest(w, reference.cdf).pvalue > 0.01
        assert (flags.normal, flags.uniform, flags.random) == (True, False, True)
    elif name in BOUND:
        assert stats.kstest(w, stats.uniform(-BOUND[name], 2 * BOUND[name]).cdf).pvalue > 0.01
        assert (flags.normal, flags.uniform, flags.random) == (False, True, True)
    elif name == "orthogonal":
        rows = w.reshape(64, -1)
        np.testing.assert_allclose(rows @ rows.T, np.eye(64), atol=1e-5)
    elif name == "positive_unitball":
        assert w.min() >= 0
        np.testing.assert_allclose(w.reshape(64, -1).sum(1), 1, rtol=1e-5)
    elif name == "identity":
        x = torch.randn(1, 32, 6, 6)
        torch.testing.assert_close(layer(x)[:, :32], x[:, :, 1:-1, 1:-1])
    else:
        assert np.ptp(w) == 0
        assert not flags.random


def test_leaky_gain_and_mean_variance():
    torch.manual_seed(0)
    layer = nn.Linear(400, 300)
    variants.initialize(layer, "he_normal", a=1.0)
    assert layer.weight.std().item() == pytest.approx((2 / (2 * 400)) ** 0.5, rel=0.02)
    with torch.no_grad():
        layer.weight.exponential_(2.0)
    old = layer.weight.detach().clone()
    variants.mean_variance(layer)
    w = layer.weight.detach()
    assert (w.mean().item(), w.std().item()) == pytest.approx((old.mean().item(), old.std().item()), rel=0.02)
    assert stats.kstest(w.numpy().ravel(), stats.norm(old.mean(), old.std()).cdf).pvalue > 0.01


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", ["lora", "ia3", "residual"])
def test_adapters_start_as_nothing_learn_alone_and_merge_exactly(name, dims):
    net, x = small(dims), images(dims)
    before = net.eval()(x)
    apply(net, {"adapter": name}, blocks=BLOCKS)
    torch.testing.assert_close(net(x), before)
    trained = {key for key, p in net.named_parameters() if p.requires_grad}
    assert {"head.2.weight", "head.2.bias"} <= trained
    assert not any(key.endswith((".original", "stem.0.weight")) for key in trained)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        net(x).square().sum().backward()
        optimizer.step()
    after = net(x)
    assert not torch.allclose(after, before)
    twin = apply(small(dims), {"adapter": name}, blocks=BLOCKS)
    twin.load_state_dict(net.state_dict())
    torch.testing.assert_close(twin.eval()(x), after)
    variants.merge_adapters(net)
    torch.testing.assert_close(net(x), after)
    if name != "residual":
        assert set(net.state_dict()) == set(small(dims).state_dict())


def test_lora_has_the_rank_that_was_asked_for():
    net = nn.Sequential(nn.Conv2d(4, 16, 3), nn.Flatten(), nn.Linear(16, 2))
    old = net[0].weight.detach().clone()
    apply(net, {"adapter": {"name": "lora", "rank": 2}})
    with torch.no_grad():
        net[0].parametrizations.weight[0].lora_b.normal_()
    assert torch.linalg.matrix_rank((net[0].weight - old).flatten(1)).item() == 2


def test_activations_and_pooling_are_replaced():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1))
    apply(net, {"act": "tanh", "pooling": "overlapping"})
    assert isinstance(net[1], nn.Tanh)
    assert (net[2].kernel_size, net[2].stride) == (3, 2)
    assert net(torch.randn(1, 1, 10, 10)).shape == (1, 2, 4, 4)
    assert isinstance(apply(net, {"pooling": "average"})[2], nn.AvgPool2d)
    overlaps = apply(nn.Sequential(nn.AvgPool2d(3, 2)), {"pooling": "overlapping"})[0]
    assert isinstance(overlaps, nn.MaxPool2d)
    assert (overlaps.kernel_size, overlaps.stride, overlaps.padding) == (3, 2, 0)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"nrom": "group"}, "did you mean 'norm'"),
        ({"norm": "grup"}, "there is no norm 'grup'"),
        ({"norm": {"groups": 2}}, "norm needs a name"),
        ({"norm": {"name": "instance", "groups": 2}}, "norm instance does not take groups"),
        ({"norm": {"name": "renorm", "track_running_stats": False}}, "renorm: it normalizes by running statistics"),
        ({"norm": {"name": "stoch", "track_running_stats": False}}, "stoch: it normalizes by running statistics"),
        ({"norm": {"name": "frozen", "track_running_stats": False}}, "frozen: it normalizes by running statistics"),
        ({"norm": {"name": "domain", "domains": ["A", "A"]}}, "at least two domains of different names"),
        ({"dropout": 1.0}, "below 1"),
        ({"dropout": {"name": "spatial", "p": 0.1, "block": 2}}, "does not take block"),
        ({"dropout": {"name": "spatial", "p": 0.1}}, "names none"),
        ({"init": "he"}, "there is no initialization 'he'"),
        ({"init": {"name": "he_normal", "std": 1}}, "does not take std"),
        ({"act": "rely"}, "there is no activation 'rely'"),
        ({"pooling": "max"}, "has no pooling modules"),
        ({"adapter": {"name": "lora", "rank": 0}}, "rank must be at least 1"),
    ],
)
def test_mistakes_are_named(variant, message):
    with pytest.raises(UserError, match=message):
        apply(small(), variant)
