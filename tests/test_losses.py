"""Losses against numbers worked by hand, and what those of segmentation share."""

import math

import pytest
import torch

from medtl_monai.losses import (
    LOSSES,
    BalancedCrossEntropyLoss,
    MaskedBCEWithLogitsLoss,
    segmentation_loss,
    smoothing_part,
    task_loss,
)
from medtl_monai.utils import UNKNOWN, UserError

CLASSES = ["background", "left ventricle", "myocardium"]


def test_the_weighted_combination_is_the_formula():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 1, 4, 5))
    weights = {"left ventricle": 2.0, "myocardium": 0.5}
    got = segmentation_loss(classes=CLASSES, weights=weights)(logits, label)
    p, w = logits.softmax(1).double(), [1.0, 2.0, 0.5]
    dice = 0.0
    for k in (1, 2):
        y = (label[:, 0] == k).double()
        dice += w[k] * (1 - 2 * (p[:, k] * y).sum().item() / (p[:, k].sum() + y.sum()).item()) / 2
    pixels = [
        (w[int(k)], -math.log(q[int(k)])) for q, k in zip(p.movedim(1, -1).reshape(-1, 3), label.flatten(), strict=True)
    ]
    entropy = sum(a * b for a, b in pixels) / sum(a for a, _ in pixels)
    assert float(got) == pytest.approx(dice + entropy, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_prediction_costs_less_than_a_wrong_one_and_gradients_flow(name):
    label = torch.zeros(2, 1, 16, 16)  # as transforms give it
    label[:, :, 4:9, 3:9], label[:, :, 10:14, 10:14] = 1, 2
    right = 8.0 * torch.nn.functional.one_hot(label[:, 0].long(), 3).movedim(-1, 1)
    loss = segmentation_loss(name, classes=CLASSES, weights={"myocardium": 2.0})
    wrong = right.roll(3, -1).clone().requires_grad_()
    high = loss(wrong, label)
    assert high.ndim == 0
    assert float(loss(right, label)) < 0.2 * float(high.detach())
    high.backward()
    assert wrong.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["dice", "focal", "tversky"])
def test_a_heavier_structure_counts_more(name):
    torch.manual_seed(0)
    logits, label = torch.randn(1, 3, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.long)
    label[..., 4:] = 2
    logits[:, 1] += 3  # the left ventricle is right, the myocardium wrong
    even = segmentation_loss(name, classes=CLASSES)(logits, label)
    uneven = segmentation_loss(name, classes=CLASSES, weights={"myocardium": 5.0})(logits, label)
    assert uneven > even


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"name": "dise"}, "did you mean 'dice'"),
        ({"weights": {"LV": 2}}, "'LV', which is not among background"),
        ({"weights": {"myocardium": 0}}, "must be a number above 0"),
        ({"name": "focal", "options": {"gama": 3}}, "does not take gama"),
    ],
)
def test_mistakes_are_named(args, message):
    with pytest.raises(UserError, match=message):
        segmentation_loss(classes=CLASSES, **args)


def test_each_class_counts_alike_and_unknown_places_do_not():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    label = torch.zeros(2, 1, 4, 5, dtype=torch.uint8)
    label[0, 0, 0, 0], label[0, 0, 1:] = 2, UNKNOWN  # one place of the class 2, none of the class 1
    loss = BalancedCrossEntropyLoss()(logits, label)
    minus = -logits.detach().log_softmax(1)
    healthy = torch.cat([minus[0, 0, 0, 1:], minus[1, 0].flatten()])
    assert loss.item() == pytest.approx(float(healthy.mean() + minus[0, 2, 0, 0]) / 2, rel=1e-6)
    loss.backward()
    assert logits.grad[0, :, 1:].abs().max() == 0
    nothing = BalancedCrossEntropyLoss()(logits, torch.full_like(label, UNKNOWN))
    assert nothing.item() == 0


def test_the_smoothing_of_a_cross_entropy_is_the_formula():
    logits, label = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]], requires_grad=True), torch.tensor([0, 1])
    # s (log p_y - mean log p): 0.3 (2 - 2 / 3), and 0.3 (0 - 1)
    by_hand = torch.tensor([0.4, -0.3])
    part = smoothing_part(torch.nn.CrossEntropyLoss(label_smoothing=0.3, reduction="none"), logits, label)
    torch.testing.assert_close(part, by_hand)
    assert not part.requires_grad
    ignoring = torch.nn.CrossEntropyLoss(label_smoothing=0.3, ignore_index=1)
    assert smoothing_part(ignoring, logits, label).item() == pytest.approx(0.4)
    assert ignoring.label_smoothing == 0.3
    weights = torch.tensor([1.0, 2.0, 1.0])
    weighted = torch.nn.CrossEntropyLoss(weights, label_smoothing=0.3)
    # -log p: c - (2, 0, 0) and d - (0, 0, 3); smoothed: 0.7 w_y l_y + 0.1 sum w_k l_k, divided by w_0 + w_1 = 3
    c, d = math.log(math.exp(2) + 2), math.log(math.exp(3) + 2)
    plain = (c - 2) + 2 * d
    smooth = 0.7 * plain + 0.1 * (4 * c - 2) + 0.1 * (4 * d - 3)
    assert smoothing_part(weighted, logits, label).item() == pytest.approx((smooth - plain) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "shape", "label"),
    [
        (lambda s: MaskedBCEWithLogitsLoss([2.0, 1.0], s), (2, 2), [[1.0, 0.0], [math.nan, 1.0]]),
        (BalancedCrossEntropyLoss, (1, 2, 1, 4), [[[[0, 0, 1, UNKNOWN]]]]),
        (lambda s: task_loss("classification", [0, 1], s), (2, 3), [0, 2]),
        (lambda s: segmentation_loss(classes=CLASSES, options={"label_smoothing": s}), (1, 3, 1, 2), [[[[0, 2]]]]),
    ],
)
def test_smoothing_is_the_difference_to_the_loss_without(make, shape, label):
    torch.manual_seed(0)
    pred, label = torch.randn(shape), torch.tensor(label)
    got = smoothing_part(make(0.2), pred, label)
    torch.testing.assert_close(got, make(0.2)(pred, label) - make(0.0)(pred, label), rtol=0, atol=0)
    assert got.abs() > 1e-3
    assert smoothing_part(make(0.0), pred, label) is None


def test_the_smoothing_of_findings_by_hand():
    # towards a half by 0.2: 0.9 of "present" and 0.1 of "absent", whose losses differ by the logit
    part = smoothing_part(MaskedBCEWithLogitsLoss(label_smoothing=0.2), torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    assert part.item() == pytest.approx(0.1 * 3.0)


def test_a_loss_that_is_a_function_has_no_smoothing():
    assert smoothing_part(torch.nn.functional.cross_entropy, torch.zeros(1, 2), torch.tensor([0])) is None
