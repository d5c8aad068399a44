"""Losses of domains and teachers, and the strategies on them: against numpy, scikit-learn and hand-worked numbers."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import Images
from monai.data import DataLoader, Dataset
from scipy.spatial.distance import pdist, squareform
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from test_strategies import Places, bound, fit, loader, toy, trainer
from torch import nn
from torch.distributions import Normal, kl_divergence

from medtl_monai.backbones import anatomy
from medtl_monai.backbones import build as build_network
from medtl_monai.bundle import SourceImages, TargetImages, transfer
from medtl_monai.losses import (
    attention_transfer,
    batch_spectral_shrinkage,
    coral,
    distillation,
    feature_norm,
    gradient_reversal,
    info_nce,
    joint_mmd,
    linear_dependency,
    minimum_class_confusion,
    mmd,
    normal_divergence,
    relational_angles,
    relational_distances,
    similarity_preserving,
)
from medtl_monai.strategies import Context, Step, build, discriminator_weights, kernel_mean_matching, kliep
from medtl_monai.strategies.densities import principal_components
from medtl_monai.strategies.feature.mixstyle import mix_style
from medtl_monai.strategies.instance.tradaboost import tradaboost_weights
from medtl_monai.strategies.semi.vat import virtual_adversarial_loss
from medtl_monai.transforms import PrepareBatch
from medtl_monai.utils import UserError


def features(n=12, f=5, seed=0, shift=0.0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed)) + shift


def test_coral_is_the_distance_of_the_covariances_and_ignores_shifts():
    x, y = features(), 2 * features(9, seed=1)
    expected = np.square(np.cov(x.numpy().T) - np.cov(y.numpy().T)).sum() / (4 * 25)
    assert coral(x, y).item() == pytest.approx(expected, rel=1e-4)
    assert coral(x, y + 7).item() == pytest.approx(expected, rel=1e-3)


def test_mmd_equals_scikit_learns_kernels_is_symmetric_and_zero_for_equal_sets():
    x, y = features(), features(9, seed=1, shift=1.0)
    both = torch.cat([x, y]).numpy().astype(float)
    width = squareform(pdist(both, "sqeuclidean")).sum() / (21 * 20)
    k = np.mean([rbf_kernel(both, gamma=1 / (s * width)) for s in (0.25, 0.5, 1, 2, 4)], axis=0)
    expected = k[:12, :12].mean() + k[12:, 12:].mean() - 2 * k[:12, 12:].mean()
    assert mmd(x, y).item() == pytest.approx(expected, rel=1e-3)
    assert mmd(y, x).item() == pytest.approx(expected, rel=1e-3)
    assert mmd(x, x).item() == pytest.approx(0, abs=1e-6)
    assert joint_mmd([x], [y]).item() == pytest.approx(expected, rel=1e-3)
    assert joint_mmd([x, x], [x, x]).item() == pytest.approx(0, abs=1e-6)


def test_class_confusion_is_least_where_predictions_are_sure_and_balanced():
    sure = torch.tensor([[50.0, 0], [0, 50]])
    assert minimum_class_confusion(sure, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert minimum_class_confusion(torch.zeros(4, 2)).item() == pytest.approx(0.5)  # each row is half and half


def test_feature_norms_are_drawn_one_step_further():
    x = features().requires_grad_()
    loss = feature_norm(x, 0.5)
    assert loss.item() == pytest.approx(0.25)
    loss.backward()
    assert ((x - 0.1 * x.grad).norm(dim=1) > x.norm(dim=1)).all()


def test_the_gradient_is_turned_round_and_grows():
    for progress, factor in ((0.0, 0.0), (0.5, 2 / (1 + math.exp(-5)) - 1)):
        x = torch.ones(3, requires_grad=True)
        gradient_reversal(x, progress).sum().backward()
        torch.testing.assert_close(x.grad, torch.full((3,), -factor))


def test_relations_between_images_against_numpy():
    s, t = features(6), features(6, seed=1)
    d = [pdist(x.numpy()) / pdist(x.numpy()).mean() for x in (s, t)]
    gap = np.abs(d[0] - d[1])
    assert relational_distances(s, t).item() == pytest.approx(np.where(gap < 1, gap**2 / 2, gap - 0.5).mean(), rel=1e-4)
    assert relational_distances(s, 3 * s + 1).item() == pytest.approx(0, abs=1e-8)
    assert relational_angles(s, 3 * s + 1).item() == pytest.approx(0, abs=1e-8)
    corner = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    line = torch.tensor([[0.0, 0], [1, 0], [-1, 0]])
    cosines = [[0, 1 / math.sqrt(2), 1 / math.sqrt(2)], [-1, 1, 1]]  # at each vertex, between the two others
    gaps = np.abs(np.subtract(*cosines))
    expected = 2 * np.where(gaps < 1, gaps**2 / 2, gaps - 0.5).sum() / 27
    assert relational_angles(corner, line).item() == pytest.approx(expected, rel=1e-4)


def test_teachers_against_numpy():
    s, t = features(4), features(4, seed=1)
    g = [x.numpy() @ x.numpy().T for x in (s, t)]
    g = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in g]
    assert similarity_preserving(s, t).item() == pytest.approx(np.square(g[0] - g[1]).sum() / 16, rel=1e-4)
    p, q = (np.exp(x.numpy() / 3) / np.exp(x.numpy() / 3).sum(1, keepdims=True) for x in (s, t))
    assert distillation(s, t, 3.0).item() == pytest.approx(9 * (q * np.log(q / p)).sum(1).mean(), rel=1e-4)
    maps = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    maps[0][0, :, 0, 0], maps[1][0, :, 0, 1] = 3.0, 1.0  # they look at different places: two unit vectors
    assert attention_transfer(*maps).item() == pytest.approx(math.sqrt(2))
    assert attention_transfer(maps[0], 5 * maps[0]).item() == pytest.approx(0, abs=1e-6)
    values = np.linalg.svd(s.numpy(), compute_uv=False)
    assert batch_spectral_shrinkage(s, 2).item() == pytest.approx((values[-2:] ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize("method", [kernel_mean_matching, kliep, discriminator_weights])
def test_importance_weights_follow_the_ratio_of_the_densities(method):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (300, 1)), rng.normal(0.7, 0.8, (300, 1))
    ratio = (norm(0.7, 0.8).pdf(x) / norm(0, 1).pdf(x))[:, 0]
    weights = method(x, y)
    assert weights.min() >= 0
    assert weights.mean() == pytest.approx(1)
    assert np.corrcoef(weights, ratio)[0, 1] > (0.75 if method is discriminator_weights else 0.9)
    near = 0.25 if method is discriminator_weights else 0.15  # its odds are log-linear
    assert np.average(x[:, 0], weights=weights) == pytest.approx(y.mean(), abs=near)
    same = method(x, x)
    assert np.abs(same - 1).mean() < 0.2


def test_contrast_rank_and_divergence_against_references():
    x, y = features(6), features(6, seed=1)
    similar = cosine_similarity(x.numpy(), y.numpy()) / 0.3
    expected = -(np.diag(similar) - logsumexp(similar, axis=1)).mean()
    assert info_nce(x, y, 0.3).item() == pytest.approx(expected, rel=1e-4)
    both = info_nce(torch.stack([x, y]), torch.stack([y, x]), 0.3).item()
    assert both == pytest.approx((expected + info_nce(y, x, 0.3).item()) / 2, rel=1e-4)
    values = np.linalg.svd(x.numpy(), compute_uv=False)
    assert linear_dependency(x, 2).item() == pytest.approx(values[2], rel=1e-4)
    assert linear_dependency(x, 5).item() == 0
    given = Normal(x.double(), (y.double() / 2).exp())
    expected = kl_divergence(given, Normal(0.0, 1.0)).sum(1).mean().item()
    assert normal_divergence(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_linear_dependency_by_its_parts():
    net = toy().eval()
    strategy = bound(build("linear_dependency(weight=2.0, divergence=0.5, codes=6)"))
    strategy.prepare(net)
    image, label = batch()
    s = step(net, image, label)
    torch.manual_seed(1)
    loss = strategy.loss(s)
    seen = net.body(net.stem(image)).flatten(2).mean(-1)
    mean, log_variance = strategy.encoder(seen).chunk(2, 1)
    torch.manual_seed(1)
    codes = mean + torch.randn(8, 6) * (log_variance / 2).exp()
    expected = nn.functional.cross_entropy(strategy.classifier(codes), label)
    expected = expected + 0.5 * normal_divergence(mean, log_variance) + 2.0 * torch.linalg.svdvals(codes)[2]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert net.stem[0].weight.grad.abs().sum() > 0


def test_simcvd_by_its_parts():
    torch.manual_seed(0)
    net, (image, _) = Places().eval(), batch()
    strategy = build("simcvd(contrast=2.0, structure=3.0, consistency=5.0)")
    strategy.bind(Context(task="segmentation"))
    strategy.prepare(net)
    label = (image[:, 0] > 0).long()
    s = step(net, image, label, progress=1.0)
    torch.manual_seed(1)
    loss = strategy.loss(s)
    torch.manual_seed(1)  # the teacher has the same weights; its dropout alone differs, its batch norm stands still
    body = strategy.teacher.body
    kept = nn.functional.dropout(body[:3](strategy.teacher.stem(image)), 0.2)
    wanted, found = strategy.teacher.fc(kept).softmax(1)[:, 1], s.pred.softmax(1)[:, 1]
    edges = [(p * (1 - p)).flatten(1) for p in (found, wanted)]
    seen = net.body(net.stem(image))
    places = [x.flatten(2).transpose(1, 2) for x in (seen, kept)]
    expected = 2 * info_nce(*edges) + 3 * info_nce(*places) + 5 * (found - wanted).square().mean()
    torch.testing.assert_close(loss, expected)
    assert strategy.teacher.stem[1].num_batches_tracked == 0
    net.body[3].p = 0.0
    with pytest.raises(UserError, match="no dropout, and so no two views"):
        strategy.prepare(net)


def test_principal_components_are_scikit_learns():
    x, y = (features(n, 6, seed=n).numpy().astype(float) for n in (20, 30))
    found = np.concatenate(principal_components(x, y, 3))
    expected = PCA(3).fit_transform(np.concatenate([x, y]))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)


class Shifted:
    """Two kinds of images, told apart by their brightness; the target has the second kind alone."""

    source = [torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(i)) + 3.0 * i for i in range(2)]
    target = [torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(7)) + 3.0]


@pytest.mark.parametrize("method", ["kmm", "kliep", "discriminator"])
def test_importance_finds_the_images_that_are_like_the_targets(method):
    net = toy()
    before = copy.deepcopy(net.state_dict())
    strategy = build(f"importance(method={method})")
    strategy.bind(Context(source=Shifted.source, target=Shifted.target))
    strategy.prepare(net)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not net.fc._forward_pre_hooks
    assert strategy.table.mean().item() == pytest.approx(1, rel=1e-5)
    assert strategy.table[12:].sum() > 4 * strategy.table[:12].sum()
    chosen = build(f"source_selection(keep=0.25, method={method})")
    chosen.bind(Context(source=Shifted.source, target=Shifted.target, labels=[0, 1] * 12))
    chosen.prepare(net)
    assert (chosen.table[:12] == 0).all()
    assert sorted(chosen.table.unique().tolist()) == [0, 4]
    chosen.bind(Context(source=Shifted.source, target=Shifted.target, labels=[0] * 12 + [1] * 12))
    with pytest.raises(UserError, match="no image of class 0"):
        chosen.prepare(net)


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_importance_takes_its_features_from_the_cache(place, tmp_path):
    """As a forward pass gives them; a second run with the same folder computes one batch of each set."""
    place = place if place == "memory" else str(tmp_path)
    items = [{"image": image} for image in torch.cat(Shifted.source)]
    near = Dataset([{"image": image} for image in torch.cat(Shifted.target)])
    plain = PrepareBatch([0.0], [1.0])
    source = SourceImages(items, transform=None, prepare=plain, batch_size=4, device="cpu")
    target = TargetImages(DataLoader(near, batch_size=4, shuffle=True), {"plain": plain}, "cpu")
    tables, computed = [], []
    for cache in (None, place, place):
        net, strategy, seen = toy(), build("importance"), []
        first = net.get_submodule(anatomy(net).blocks[0].prefixes[0])
        first.forward = lambda x, run=first.forward, seen=seen: (seen.append(len(x)), run(x))[1]
        given = {"source": source, "target": target, "cache_features": cache}
        transfer(net, strategy, toy().state_dict(), device="cpu", **given)
        tables.append(strategy.table)
        computed.append(sum(seen))
    torch.testing.assert_close(tables[1], tables[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(tables[2], tables[1])
    assert (computed[2] < computed[1]) == (place != "memory")


def test_tradaboost_by_hand():
    weights, errors = [1.0, 2.0, 1.0, 2.0], [0.5, 0.0, 0.25, 0.1]
    found = tradaboost_weights(weights, errors, [False, False, True, True], 4)
    epsilon = (1 * 0.25 + 2 * 0.1) / 3  # 0.15
    beta = 1 / (1 + math.sqrt(2 * math.log(2) / 4))
    expected = [beta**0.5, 2.0, ((1 - epsilon) / epsilon) ** 0.25, 2 * ((1 - epsilon) / epsilon) ** 0.1]
    np.testing.assert_allclose(found, np.array(expected) / np.mean(expected))


def test_tradaboost_follows_the_errors_of_each_epoch():
    net, (image, label) = toy().eval(), batch(4)
    strategy = build("tradaboost(rounds=4)")
    strategy.bind(Context(domains=["a", "target", "a", "target"]))
    strategy.prepare(net)
    strategy.on_epoch(net, 1)
    s = Step(net, image, label, net(image), 0.0, {"index": torch.tensor([2, 3, 0, 1])})
    assert strategy.loss(s).item() == 0
    strategy.on_epoch(net, 2)
    errors = 1 - s.pred.softmax(1)[torch.arange(4), label].detach().numpy()
    expected = tradaboost_weights(np.ones(4), errors[[2, 3, 0, 1]], [False, True, False, True], 4)
    np.testing.assert_allclose(strategy.table, expected, rtol=1e-5)
    each = nn.functional.cross_entropy(s.pred, label, reduction="none")
    weighted = torch.as_tensor(expected)[[2, 3, 0, 1]] * each
    assert (each.mean() + strategy.loss(s)).item() == pytest.approx(weighted.mean().item(), rel=1e-5)
    with pytest.raises(UserError, match="needs images of the domain 'target' and of others, there are a, b"):
        strategy.bind(Context(domains=["a", "b"]))


def test_alpha_beta_keeps_the_sources_predictions_from_a_run():
    strategy = build("alpha_beta(keep=lwf)")
    network = build_network("efficientnet_lite0", in_channels=1)
    made = transfer(network, strategy, "efficientnet_lite0_imagenet", device="cpu", classes=2)
    assert strategy.keep.source_head.weight.shape == (1000, 1280)
    x = torch.randn(2, 1, 32, 32)
    s = step(made.network.eval(), x, torch.tensor([0, 1]))
    assert strategy.loss(s).item() == pytest.approx(0, abs=1e-5)  # beta is 1 and nothing has moved
    with pytest.raises(UserError, match="LwF is for classification and multilabel, not for segmentation"):
        transfer(network, strategy, "efficientnet_lite0_imagenet", device="cpu", task="segmentation")


def step(network, image, label, progress=0.5):
    pred = network(image)
    return Step(network, image, label, pred, progress, {}, nn.functional.cross_entropy(pred, label))


def batch(n=8):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.arange(n) % 2


@pytest.mark.parametrize("name", ["rkd", "similarity_preserving", "attention_transfer", "delta", "lwf"])
def test_what_keeps_the_source_is_zero_at_first_and_grows_as_the_network_moves(name):
    net = toy().eval()
    strategy = bound(build(name))
    strategy.prepare(net)
    image, label = batch()
    assert strategy.loss(step(net, image, label)).item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        for parameter in net.body.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    assert strategy.loss(step(net, image, label)).item() > 1e-4


def test_alpha_beta_moves_pretrained_weights_by_both_gradients_and_new_ones_by_betas():
    image, label = batch()
    net = toy().eval()
    strategy = bound(build("alpha_beta(alpha=0.3, beta=0.5)"))
    strategy.prepare(net)
    with torch.no_grad():
        net.stem[0].weight += 0.1
    s = step(net, image, label)
    (s.task_loss + strategy.loss(s)).backward()
    both, head = net.stem[0].weight.grad.clone(), net.fc.weight.grad.clone()
    net.zero_grad()
    nn.functional.cross_entropy(net(image), label).backward()
    torch.testing.assert_close(head, 0.5 * net.fc.weight.grad)
    torch.testing.assert_close(both, 0.5 * net.stem[0].weight.grad + 0.3 * 0.1)  # of |w - w0|^2 / 2


def test_delta_attends_to_the_channel_that_matters():
    net = toy().eval()
    strategy = bound(build("delta"))
    strategy.prepare(net)
    image, _ = batch()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        head[2].weight.zero_()
        head[2].weight[1, 2] = 1.0
    strategy.attend(image, torch.ones(len(image), dtype=torch.long), head)
    assert strategy.attention.argmax() == 2
    assert strategy.attention.sum().item() == pytest.approx(4)


def test_co_tuning_learns_the_relations_in_the_first_epoch():
    net = toy().eval()
    strategy = bound(build("co_tuning"))
    strategy.prepare(net)
    image, label = batch()
    with torch.no_grad():
        source = strategy.teacher_head(net.body(net.stem(image)).flatten(2).mean(-1)).softmax(1)
    strategy.on_epoch(net, 1)
    loss = strategy.loss(step(net, image, label))
    relations = torch.stack([source[label == c].mean(0) for c in (0, 1)])
    expected = -(relations[label] * source.log()).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    counts = strategy.counts.clone()
    strategy.on_epoch(net, 2)
    strategy.loss(step(net, image, label))
    assert torch.equal(strategy.counts, counts)


def test_dann_trains_its_discriminator_to_tell_and_the_network_not_to():
    net = toy().eval()
    strategy = bound(build("dann"))
    strategy.prepare(net)
    image, label = batch()
    s = step(net, image, label, progress=1.0)
    strategy.loss(s).backward()
    reversed_gradient = net.stem[0].weight.grad.clone()
    discriminator = strategy.discriminator[0].weight.grad.clone()
    net.zero_grad()
    strategy.zero_grad()
    strategy.context.target.restart()
    source = net.body(net.stem(image)).flatten(2).mean(-1)
    target = net.body(net.stem(strategy.context.target.next("augmented")[0])).flatten(2).mean(-1)
    logits = strategy.discriminator(torch.cat([source, target]))[:, 0]
    nn.functional.binary_cross_entropy_with_logits(logits, torch.cat([torch.ones(8), torch.zeros(8)])).backward()
    torch.testing.assert_close(strategy.discriminator[0].weight.grad, discriminator)
    torch.testing.assert_close(reversed_gradient, -net.stem[0].weight.grad * (2 / (1 + math.exp(-10)) - 1))


@pytest.mark.parametrize("moving", [True, False])
def test_the_target_moves_batch_norm_only_where_it_may(moving):
    net = toy().train()
    strategy = bound(build(f"coral(target_statistics={moving})"))
    strategy.prepare(net)
    s = step(net, *batch())
    before = net.stem[1].running_mean.clone()
    strategy.loss(s)
    assert torch.equal(net.stem[1].running_mean, before) != moving
    assert net.stem[1].momentum == 0.1


def test_alignment_brings_the_domains_together():
    def gap(weight):
        net = fit(bound(build(f"mmd(weight={weight})")), toy(), 8).eval()
        image = torch.cat([b["image"] for b in loader()])
        other = torch.cat(Images().next("plain"))
        with torch.no_grad():
            return mmd(*(net.body(net.stem(x)).flatten(2).mean(-1) for x in (image, other))).item()

    assert gap(5.0) < 0.8 * gap(0.0)


@pytest.mark.parametrize("spec", ["adabn(batches=3)", "adabn(batches=3) + ema", "ema + adabn(batches=3)"])
def test_adabn_leaves_the_targets_statistics(spec):
    net = fit(bound(build(spec)), toy(), 1)
    target = Images()
    batches = [net.stem[0](target.next("plain")[0]) for _ in range(3)]
    mean = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(net.stem[1].running_mean, mean, atol=1e-5, rtol=1e-4)


def test_mixstyle_exchanges_mean_and_deviation_and_nothing_else():
    x = torch.randn(6, 3, 16, 16) * torch.arange(1, 7).view(6, 1, 1, 1) + torch.arange(6).view(6, 1, 1, 1)
    torch.testing.assert_close(mix_style(x, torch.ones(6)), x, atol=1e-4, rtol=1e-4)
    y = mix_style(x, torch.zeros(6))
    torch.testing.assert_close(y.mean((2, 3)).sort(0).values, x.mean((2, 3)).sort(0).values, atol=1e-3, rtol=1e-3)
    normal = [(z - z.mean((2, 3), True)) / z.std((2, 3), keepdim=True) for z in (x, y)]
    torch.testing.assert_close(*normal, atol=1e-3, rtol=1e-3)


def test_surgical_bitfit_and_auto_rgn_move_what_they_say():
    for part, moved in (("first", {"stem", "fc"}), ("last", {"body", "fc"})):
        net = toy()
        bound(build(f"surgical(part={part})")).prepare(net)
        assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == moved
    net = toy()
    build("bitfit").prepare(net)
    still = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert still == {"stem.0.weight", "body.0.weight"}
    seen = []
    engine = trainer(build("auto_rgn"), toy(), 1, train_data_loader=loader(n=8))
    step_of = engine.optimizer.step
    engine.optimizer.step = lambda *a, **k: (seen.append([g["lr"] for g in engine.optimizer.param_groups]), step_of())
    engine.run()
    assert max(seen[0]) == pytest.approx(0.05)
    assert min(seen[0]) < 0.049
    assert [group["lr"] for group in engine.optimizer.param_groups] == [0.05] * 3


def test_instance_weights_by_hand():
    net, (image, label) = toy().eval(), batch(4)
    pred = torch.tensor([[2.0, 0], [0, 1], [0, 0], [1, 0]])
    label = torch.tensor([0, 1, 1, 0])
    each = nn.functional.cross_entropy(pred, label, reduction="none")
    s = Step(net, image, label, pred, 0.0, {"index": torch.tensor([3, 0, 1, 2])})
    balanced = build("class_balanced(beta=0.5)")
    balanced.bind(Context(labels=[0, 0, 0, 1]))
    balanced.prepare(net)
    w = torch.tensor([0.842105, 1.473684, 1.473684, 0.842105])
    assert balanced.loss(s).item() == pytest.approx(((w - 1) * each).mean().item(), rel=1e-4)
    focal = (1 - (-each).exp()) ** 2
    assert build("focal").loss(s).item() == pytest.approx(((focal - 1) * each).mean().item(), rel=1e-4)
    weights = build("sample_weights")
    weights.bind(Context(weights=["0", "1", "1.0", "2"]))
    weights.prepare(net)
    given = torch.tensor([2.0, 0, 1, 1])
    assert weights.loss(s).item() == pytest.approx(((given - 1) * each).mean().item(), rel=1e-4)
    for wrong in (["1", "heavy"], ["1", "-1"], ["0", "0"], ["1", "nan"]):
        with pytest.raises(UserError, match="the column weight must hold numbers"):
            weights.bind(Context(weights=wrong))
    with pytest.raises(UserError, match="place in the training set"):
        weights.loss(Step(net, image, label, pred, 0.0))


def test_the_adversarial_change_hurts_more_than_a_random_one():
    net, (image, _) = toy().eval(), batch()
    logits = net(image)
    adversarial = virtual_adversarial_loss(net, image, logits, xi=0.1, epsilon=1.0)
    p, noise = logits.softmax(1), torch.randn_like(image)
    noise = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    random = (p * (p.log() - net(image + noise).log_softmax(1))).sum(1).mean()
    assert adversarial.item() > 2 * random.item() >= 0


def test_fixmatch_learns_only_from_what_is_sure():
    net = toy().eval()
    image, label = batch()
    sure = bound(build("fixmatch(threshold=0.0)"))
    easy, hard = Images().next("plain", "augmented")
    expected = nn.functional.cross_entropy(net(hard), net(easy).argmax(1))
    assert sure.loss(step(net, image, label)).item() == pytest.approx(expected.item(), rel=1e-4)
    never = bound(build("fixmatch(threshold=0.999)"))
    assert never.loss(step(net, image, label)).item() == 0


def test_the_mean_teacher_is_the_moving_average():
    strategy = bound(build("mean_teacher(decay=0.5, weight=0.0)"))
    engine = trainer(strategy, toy(), 1, train_data_loader=loader(n=8))
    start = copy.deepcopy(engine.network.state_dict())
    engine.run()
    for key, value in engine.network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(strategy.teacher.state_dict()[key], (start[key] + value) / 2)


@pytest.mark.parametrize("name", ["mmd", "dann", "fixmatch", "co_tuning", "class_balanced"])
def test_what_is_needed_is_asked_for_before_training(name):
    with pytest.raises(UserError, match=r"needs (images without labels|the source's own classes|the training labels)"):
        build(name).bind(Context(classes=2))


def test_mixout_mixes_in_the_forward_pass_and_moves_the_trained_weights():
    torch.manual_seed(0)
    net, image, label = toy(), *batch()
    strategy = build("mixout(p=0.4)")
    strategy.prepare(net)
    source = net.body[0].weight.detach().clone()
    with torch.no_grad():
        net.body[0].weight += 1.0
    trained = net.body[0].weight.detach().clone()
    seen = []
    for _ in range(300):
        net.zero_grad()
        nn.functional.cross_entropy(net.train()(image), label).backward()
        mixed = net.body[0].weight.detach().clone()
        taken = torch.isclose(mixed, source, atol=1e-4)
        torch.testing.assert_close(mixed[~taken], (trained - 0.4 * source)[~taken] / 0.6)
        assert (net.body[0].weight.grad[taken] == 0).all()
        seen.append(mixed)
        strategy._restore(net)
        assert torch.equal(net.body[0].weight, trained)
    torch.testing.assert_close(torch.stack(seen).mean(0), trained, atol=0.25, rtol=0.2)
    assert torch.equal(net.fc.weight, toy().fc.weight)


def test_mixout_without_mixing_is_fine_tuning():
    nets = [fit(build(spec), toy(), 2) for spec in ("mixout(p=0.0)", "finetune")]
    for one, two in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, two)
