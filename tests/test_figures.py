import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics as sk

from medtl_monai import figures
from medtl_monai.backbones import anatomy, build
from medtl_monai.metrics import ranked_counts

NAMES = {
    2: ["normal", "pneumonia"],
    3: ["_leading", "cost $5 of $x", "invasive ductal carcinoma of the left breast, of a grade not stated"],
    14: [f"thoracic finding number {k}" for k in range(14)],
}
TITLE = "test: 60 images of 20 patients"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(figures, "RESAMPLES", 20)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been written."""
    kept = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
    return kept


def cohort(classes, n=60):
    generator = np.random.default_rng(classes)
    labels = np.arange(n) % classes
    scores = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), labels, [f"p{i // 3}" for i in range(n)]


def draw_all(folder, classes):
    p, y, patients = cohort(classes)
    names = NAMES[classes]
    history = [{"epoch": e, "train_loss": 1 / e, "val_loss": 2 / e, "val_auc": 1 - 0.5 / e} for e in (1, 2, 3)]
    images = [np.random.default_rng(k).random((20, 30)) for k in range(5)]
    figures.learning_curves(history, folder / "learning.png", best_epoch=2)
    figures.roc_curves(p, y, patients, names, folder / "roc.png", title=TITLE)
    figures.pr_curves(p, y, patients, names, folder / "pr.png", title=TITLE)
    figures.confusion_matrix(np.eye(classes, dtype=int), names, folder / "confusion.png", title=TITLE)
    figures.reliability_diagram(p, y, folder / "reliability.png", title=TITLE)
    figures.case_grid(images, ["true: $a\nsaid: b"] * 5, folder / "cases.png", title=TITLE)


@pytest.mark.parametrize("classes", NAMES)
def test_each_figure_is_one_png_of_readable_size(tmp_path, classes):
    draw_all(tmp_path, classes)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [
        "cases",
        "confusion",
        "learning",
        "pr",
        "reliability",
        "roc",
    ]
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert all(400 <= side <= 2400 for side in image.size)
            assert len(np.unique(np.asarray(image.convert("L")))) > 20  # something is drawn


def test_no_partial_file_is_left_when_drawing_fails(tmp_path, monkeypatch):
    def broken(self, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        figures.learning_curves([{"epoch": 1, "val_loss": 0.1}], tmp_path / "learning.png")
    assert list(tmp_path.iterdir()) == []


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_an_absent_class_says_why_it_has_no_curve(drawn):
    p, y, patients = cohort(3)
    y[y == 2] = 1
    for function in (figures.roc_curves, figures.pr_curves):
        function(p, y, patients, ["a", "b", "c"], "x.png", title=TITLE)
        assert "no image of class" in texts(drawn[-1])[0].replace("\n", " ")
        assert [axes.get_legend() is None for axes in drawn[-1].axes] == [False, False, True]


def test_curve_figures_state_the_area_and_whether_there_is_a_band(drawn):
    p, y, patients = cohort(2)
    figures.roc_curves(p, y, patients, ["a", "b"], "x.png", title=TITLE)
    figures.pr_curves(p, y, ["only"] * len(y), ["a", "b"], "x.png", title=TITLE)
    legends = [figure.axes[1].get_legend().get_texts()[0].get_text() for figure in drawn]
    assert legends[0] == f"AUC {sk.roc_auc_score(y, p[:, 1]):.3f}"
    assert legends[1] == f"AP {sk.average_precision_score(y, p[:, 1]):.3f}"
    assert drawn[0].get_suptitle() == f"ROC curves\n{TITLE}\nband: 95%, patients resampled"
    assert drawn[1].get_suptitle().endswith("no band: fewer than two patients")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40))
def test_curves_equal_scikit_learn(pairs):
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    truth[:2] = [True, False]
    tp, fp = (count[0] for count in ranked_counts(scores / 9, truth, np.ones((1, len(truth)))))
    fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(figures._roc(tp, fp)[1:], np.interp(figures.GRID[1:], fpr, tpr), atol=1e-12)
    precision, recall, _ = sk.precision_recall_curve(truth, scores)
    reached = [precision[recall >= r - 1e-9][-1] for r in figures.GRID[1:]]
    np.testing.assert_allclose(figures._pr(tp, fp)[1:], reached, atol=1e-12)


def test_the_band_holds_the_curve_of_a_large_cohort():
    p, y, patients = cohort(2, 300)
    values, low, high = figures._curves(figures._roc, p[:, 1], y == 1, patients)
    assert np.all(low <= values + 1e-9)
    assert np.mean(values <= high + 1e-9) > 0.95
    assert 0.01 < (high - low)[20:100].mean() < 0.3


def test_learning_curves_leave_gaps_and_draw_only_losses_and_metrics(drawn):
    history = [
        {"epoch": 1, "train_loss": 1.0, "val_auc": None, "lr": 0.1, "trainable": 12},
        {"epoch": 2, "train_loss": 0.5, "val_auc": 0.9},
        {"epoch": 3, "train_loss": 0.4},
    ]
    figures.learning_curves(history, "x.png")
    loss, metric = drawn[0].axes
    assert [line.get_label() for axes in (loss, metric) for line in axes.lines] == ["train loss", "val auc"]
    np.testing.assert_array_equal(metric.lines[0].get_ydata(), [np.nan, 0.9, np.nan])
    figures.learning_curves(history, "x.png", best_epoch=2)
    assert drawn[1].axes[1].lines[1].get_label() == "best epoch (2)"
    assert list(drawn[1].axes[1].lines[1].get_xdata()) == [2, 2]
    with pytest.raises(ValueError, match=r"train_\.\.\. or val_"):
        figures.learning_curves([{"epoch": 1, "lr": 0.1}], "x.png")


def test_confusion_matrix_shows_counts_and_percentages_of_the_true_class(drawn):
    figures.confusion_matrix([[3, 1], [0, 0]], ["a", "b"], "x.png", title=TITLE)
    assert texts(drawn[0]) == ["3\n75%", "1\n25%", "0", "0"]
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(1, 2\)"):
        figures.confusion_matrix([[3, 1]], ["a", "b"], "x.png", title=TITLE)


def test_reliability_diagram_shows_accuracy_and_images_per_bin_and_the_calibration_error(drawn):
    figures.reliability_diagram([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], [0, 1, 1], "x.png", title=TITLE)
    upper, lower = drawn[0].axes
    accuracy, images = (
        {i: bar.get_height() for i, bar in enumerate(a.patches) if bar.get_height()} for a in drawn[0].axes
    )
    assert accuracy == {8: 1.0, 13: 0.5}  # (.533, .6] and (.867, .933]
    assert images == {8: 1.0, 13: 2.0}
    assert upper.get_legend().get_title().get_text() == "ECE 0.400"  # 1/3 * .4 + 2/3 * .4
    assert lower.get_ylabel() == "Images"


def test_captions_tell_right_from_wrong_by_mark_and_colour(drawn):
    figures.case_grid([np.eye(4)] * 2, ["one\ntwo", "three"], "x.png", title=TITLE, correct=[True, False])
    titles = [axes.title if axes.get_title() else axes._left_title for axes in drawn[0].axes]
    assert [(t.get_text(), t.get_color()) for t in titles] == [
        ("✓ one\ntwo", figures.BLUE),
        ("✗ three", figures.VERMILLION),
    ]


def test_an_overlay_stands_beside_the_untouched_image(drawn):
    image, heat = np.arange(16.0).reshape(4, 4), np.full((4, 4), 0.5)
    figures.case_grid([image], ["one"], "x.png", title=TITLE, overlays=[heat])
    picture, cover = (shown.get_array() for shown in drawn[0].axes[0].images)
    np.testing.assert_array_equal(picture[:, :4], image)
    np.testing.assert_array_equal(picture[:, -4:], image)
    assert cover[:, :4].max() == 0
    np.testing.assert_array_equal(cover[:, -4:], heat)


def test_cases_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="as many captions, flags and overlays as images"):
        figures.case_grid([np.eye(4)], [], "x.png", title=TITLE)
    with pytest.raises(ValueError, match="at least 1"):
        figures.case_grid([], [], "x.png", title=TITLE)
    with pytest.raises(ValueError, match=r"image's shape \(4, 4\), got \(2, 2\)"):
        figures.case_grid([np.eye(4)], ["a"], "x.png", title=TITLE, overlays=[np.eye(2)])


class Pooled(torch.nn.Module):
    """A convolution that doubles, an in-place activation, pooling and two opposite logits."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(2.0)
        self.act = torch.nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.act(self.conv(x)).mean((2, 3))
        return torch.cat([y, -y], 1)


def test_grad_cam_equals_a_hand_worked_map():
    image = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])[None, None]
    # class 0: relu(2 x) scaled to its largest; class 1: its gradient is negative, so nothing speaks for it
    found = figures.grad_cam(Pooled(), "conv", image.repeat(2, 1, 1, 1), [0, 1])
    np.testing.assert_allclose(found[0], [[0.25, 0.5], [0.0, 1.0]])
    assert not found[1].any()


def test_the_last_layer_that_gives_maps_is_found_before_dense_ones():
    net = build("lenet5", in_channels=1).eval()
    layers = [block.prefixes[-1] for block in anatomy(net).blocks[:-1]]
    image = torch.rand(1, 1, 32, 32)
    layer = figures.last_map(net, layers, image)
    assert layer != layers[-1]  # which is dense
    assert figures.grad_cam(net, layer, image, [0]).shape == (1, 32, 32)
    assert figures.last_map(net, layers[-1:], image) is None
    assert not any(module._forward_hooks for module in net.modules())


def test_grad_cam_leaves_no_hook_and_works_on_a_frozen_network():
    net = Pooled().requires_grad_(False)
    found = figures.grad_cam(net, "conv", torch.ones(1, 1, 2, 2), [0])
    assert found.shape == (1, 2, 2)
    assert not net.conv._forward_hooks


def test_bland_altman_draws_the_mean_difference_and_its_limits(drawn):
    volumes = np.array([[100.0, 101.0], [50.0, 52.0], [80.0, 86.0]])[..., None]
    figures.bland_altman(volumes, ["left ventricle"], "x.png", title=TITLE)
    (axes,) = drawn[0].axes
    heights = sorted(float(line.get_ydata()[0]) for line in axes.get_lines()[1:])
    spread = 1.96 * np.std([1, 2, 6], ddof=1)
    np.testing.assert_allclose(heights, [3 - spread, 3, 3 + spread])


def test_dice_strips_show_every_defined_slice(drawn):
    dice = np.array([[0.9, np.nan], [0.5, np.nan], [np.nan, np.nan]])
    figures.dice_strips(dice, ["LV", "$odd name"], "x.png", title=TITLE)
    (axes,) = drawn[0].axes
    assert sorted(axes.get_lines()[0].get_ydata()) == [0.5, 0.9]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["LV\n(2 slices)", "\\$odd name\n(0 slices)"]


def test_contours_are_those_of_truth_and_prediction_around_the_heart(drawn):
    truth, found = np.zeros((100, 80), int), np.zeros((100, 80), int)
    truth[40:50, 30:40], found[42:52, 30:40] = 1, 1
    figures.contour_grid([np.ones((100, 80))], [(truth, found)], ["case"], ["LV", "RV"], "x.png", title=TITLE)
    (axes,) = drawn[0].axes
    assert axes.get_images()[0].get_array().shape == (12 + 32, 10 + 32)
    assert len(axes.collections) == 2
