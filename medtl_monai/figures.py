"""Figures of a run as PNG files: learning curves, ROC and PR curves, confusion matrix, calibration, single cases.

Each function writes one file, whole or not at all. They use matplotlib's ``Figure`` alone: no window, no global state.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart; where a colour means something, a mark or
a line style says it too.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.metrics.calibration import calibration_binning
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from .metrics import (
    CALIBRATION_BINS,
    calibration_error,
    check_findings,
    check_predictions,
    classification_metrics,
    finding_metrics,
    patient_bootstrap,
    ranked_counts,
)
from .utils import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "bland_altman",
    "case_grid",
    "confusion_matrix",
    "contour_grid",
    "dice_strips",
    "grad_cam",
    "last_map",
    "learning_curves",
    "pr_curves",
    "reliability_diagram",
    "roc_curves",
]

Array = NDArray[Any]

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "0.55"
DPI = 150
RESAMPLES = 200  # enough for the edge of a band
GRID = np.linspace(0, 1, 201)  # where the bands are computed


def _grid(panels: int, columns: int, size: tuple[float, float], title: str) -> tuple[Figure, list[Axes]]:
    """A titled figure of ``panels`` axes in rows of at most ``columns``, each of ``size`` (inches)."""
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(max(size[0] * columns, 4.0), size[1] * rows + 0.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.suptitle(_text(title, width=max(48, 40 * columns)), fontsize=11)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=DPI, bbox_inches="tight")


def _text(text: str, *, width: int, lines: int = 4) -> str:
    """``text`` wrapped to ``lines`` lines of ``width`` characters, with no sign left that starts a formula."""
    wrapped = [textwrap.wrap(line, width, max_lines=lines, placeholder=" …") or [""] for line in text.splitlines()]
    return "\n".join(line for part in wrapped for line in part).replace("$", r"\$")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)


def learning_curves(
    history: Sequence[dict[str, Any]], path: str | os.PathLike[str], *, best_epoch: int | None = None
) -> None:
    """Draw losses and metrics over the epochs.

    Args:
        history: one dict per epoch: ``epoch``, and any of ``train_*`` and ``val_*``. Names ending in ``loss`` share one
            panel, the others the second. A value that is missing or None leaves a gap.
        path: the PNG file.
        best_epoch: marked with a line.

    Raises:
        ValueError: the history holds no such value.
    """
    groups = _losses_and_metrics(history)
    if not groups:
        raise ValueError("Expected a history with values named train_... or val_..., got none.")
    figure, panels = _grid(len(groups), 2, (4.6, 3.4), "Learning curves")
    for axes, (label, group) in zip(panels, groups.items(), strict=True):
        _draw_epochs(axes, history, group)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best epoch ({best_epoch})")
        axes.set(xlabel="Epoch", ylabel=label)
        locator: Any = axes.xaxis.get_major_locator()  # of linear axes, matplotlib's MaxNLocator
        locator.set_params(integer=True, min_n_ticks=1)
        _tidy(axes)
        axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _losses_and_metrics(history: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """What a history holds, by the panel that it stands in; a panel without any is left out."""
    groups: dict[str, list[str]] = {"Loss": [], "Metric": []}
    for name in dict.fromkeys(name for epoch in history for name in epoch if name.startswith(("train_", "val_"))):
        groups["Loss" if name.endswith("loss") else "Metric"].append(name)
    return {label: group for label, group in groups.items() if group}


def _draw_epochs(axes: Axes, history: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    epochs = [epoch["epoch"] for epoch in history]
    for name, color in zip(names, _cycle(len(names)), strict=True):
        values = [math.nan if epoch.get(name) is None else epoch[name] for epoch in history]
        axes.plot(epochs, values, label=name.replace("_", " "), marker="o", markersize=3, linewidth=1.5, **color)


def _cycle(count: int) -> list[dict[str, Any]]:
    """Line styles that differ in colour, and past six in dashes too."""
    colors, dashes = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY], ["-", "--", ":"]
    return [{"color": colors[i % 6], "linestyle": dashes[i // 6 % 3]} for i in range(count)]


def _roc(tp: Array, fp: Array) -> Array:
    """Sensitivity at each false-positive rate of the grid, linear between thresholds."""
    return np.append(0, np.interp(GRID[1:], np.append(0, fp) / fp[-1], np.append(0, tp) / tp[-1]))


def _pr(tp: Array, fp: Array) -> Array:
    """Precision at the first threshold that reaches each recall of the grid: steps, as in average precision."""
    reached = np.searchsorted(tp / tp[-1], np.maximum(GRID, 2e-9) - 1e-9)
    return tp[reached] / np.maximum(tp + fp, 1)[reached]


def _curves(
    curve: Callable[[Array, Array], Array], scores: Array, truth: Array, patients: Sequence[str] | Array
) -> tuple[Array, Array, Array]:
    """The curve on the grid, and the lower and upper edge of its band."""

    def resampled(weights: Array) -> Array:
        pairs = zip(*ranked_counts(scores, truth, weights), strict=True)
        return np.stack([curve(tp, fp) if tp[-1] and fp[-1] else np.full(len(GRID), np.nan) for tp, fp in pairs])

    band = patient_bootstrap(resampled, patients, n=RESAMPLES)
    return resampled(np.ones((1, len(truth))))[0], band.low, band.high


def _curve_figure(
    case: tuple[ArrayLike, ArrayLike, Sequence[str], Sequence[str]], metric: str, title: str
) -> tuple[Figure, list[Axes]]:
    """One panel per class with its curve and band; the caller says what the axes are."""
    patients, classes = np.asarray(case[2]), case[3]
    findings = np.ndim(case[1]) == 2
    check, score = (check_findings, finding_metrics) if findings else (check_predictions, classification_metrics)
    probabilities, labels = check(case[0], case[1], classes)
    curve, short = (_roc, "AUC") if metric == "auc" else (_pr, "AP")
    note = "band: 95%, patients resampled" if len(set(patients)) > 1 else "no band: fewer than two patients"
    figure, panels = _grid(len(classes), 5 if len(classes) > 6 else 3, (2.6, 2.75), f"{title}\n{note}")
    found = score(probabilities, labels, classes)["per_class"]
    for k, (axes, name) in enumerate(zip(panels, classes, strict=True)):
        entry = found[name][metric]
        known, truth = _against_rest(labels, k)
        if entry["value"] is None:
            axes.text(
                0.5,
                0.5,
                _text(f"{short} undefined:\n{entry['reason']}", width=24),
                ha="center",
                va="center",
                fontsize=8,
                backgroundcolor="white",
            )
        else:
            values, low, high = _curves(curve, probabilities[known, k], truth, patients[known])
            axes.fill_between(GRID, low, high, color=BLUE, alpha=0.2, linewidth=0)
            axes.plot(GRID, values, color=BLUE, linewidth=1.6, label=f"{short} {entry['value']:.3f}")
            axes.legend(loc="lower right" if metric == "auc" else "lower left", fontsize=8, handlelength=1)
        axes.set_title(f"{_text(name, width=26, lines=2)}\n({truth.sum()} images)", fontsize=9)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        _tidy(axes)
    return figure, panels


def _against_rest(labels: Array, k: int) -> tuple[Array, Array]:
    """Which images ``(N,)`` have a label for ``k``, and of these which are of it; labels are ``(N,)`` or ``(N, C)``."""
    known = np.ones(len(labels), dtype=bool) if labels.ndim == 1 else ~np.isnan(labels[:, k])
    return known, (labels == k if labels.ndim == 1 else labels[known, k] == 1)


def roc_curves(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    classes: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str,
) -> None:
    """Draw the ROC curve of each class against the rest, with the 95% band of the patient bootstrap and the AUC.

    The band is pointwise: the interval of the sensitivity at each false-positive rate. The dashed line is chance.

    Args:
        probabilities: ``(N, C)``, rows summing to 1, or each finding's own.
        labels: ``(N,)``, integers; of findings that may stand together ``(N, C)``, 1, 0 or NaN for unknown.
        patients: ``(N,)``.
        classes: C names.
        path: the PNG file.
        title: the part and its size, such as "test: 120 images of 40 patients".
    """
    figure, panels = _curve_figure((probabilities, labels, patients, classes), "auc", f"ROC curves\n{title}")
    for axes in panels:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, zorder=1)
    figure.supxlabel("False-positive rate (1 - specificity)", fontsize=9)
    figure.supylabel("Sensitivity", fontsize=9)
    _save(figure, path)


def pr_curves(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    classes: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str,
) -> None:
    """Draw the precision-recall curve of each class against the rest, with its 95% band and the average precision.

    Arguments as for `roc_curves`: probabilities ``(N, C)``, labels ``(N,)`` or ``(N, C)``. The dashed line is
    chance: the share of the class.
    """
    figure, panels = _curve_figure(
        (probabilities, labels, patients, classes), "average_precision", f"PR curves\n{title}"
    )
    for k, axes in enumerate(panels):
        axes.axhline(_against_rest(np.asarray(labels), k)[1].mean(), color=GREY, linestyle="--", linewidth=1, zorder=1)
    figure.supxlabel("Recall (sensitivity)", fontsize=9)
    figure.supylabel("Precision (PPV)", fontsize=9)
    _save(figure, path)


def confusion_matrix(matrix: ArrayLike, classes: Sequence[str], path: str | os.PathLike[str], *, title: str) -> None:
    """Draw a confusion matrix: counts, and the percentage of the true class as number and shade.

    Args:
        matrix: ``(C, C)`` counts, the truth in rows.
        classes: C names.
        path: the PNG file.
        title: the part and its size.

    Raises:
        ValueError: the matrix is of another shape.
    """
    matrix, count = np.asarray(matrix), len(classes)
    if matrix.shape != (count, count):
        raise ValueError(f"Expected a matrix of shape ({count}, {count}), got {matrix.shape}.")
    images = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(images, 1)
    cell = 0.95 if count <= 6 else 0.62
    figure, (axes,) = _grid(1, 1, (cell * count + 2.2, cell * count + 1.4), f"Confusion matrix\n{title}")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(count, count):
        percent = f"\n{share[row, column]:.0%}" if images[row, 0] else ""
        color = "white" if share[row, column] > 0.55 else "black"
        size = 10 if count <= 6 else 7
        axes.text(column, row, f"{matrix[row, column]}{percent}", ha="center", va="center", color=color, fontsize=size)
    names = [_text(name, width=20, lines=2) for name in classes]
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set(xlabel="Predicted class", ylabel="True class (percentages of its images)")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _save(figure, path)


def reliability_diagram(
    probabilities: ArrayLike, labels: ArrayLike, path: str | os.PathLike[str], *, title: str
) -> None:
    """Draw accuracy against confidence in 15 bins, above the number of images in each.

    Confidence is the probability of the predicted class; of findings that may stand together it is the probability of
    each, and accuracy how often it is there. Bars below the diagonal mean overconfidence.
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Args:
        probabilities: ``(N, C)``, rows summing to 1, or each finding's own.
        labels: ``(N,)``, integers; or ``(N, C)``, 1, 0 or NaN for unknown.
        path: the PNG file.
        title: the part and its size.
    """
    names = [str(k) for k in range(np.shape(probabilities)[1])]
    if np.ndim(labels) == 2:
        probabilities, labels = check_findings(probabilities, labels, names)
        known = ~np.isnan(labels)
        confidence, correct = probabilities[known], labels[known] == 1
    else:
        probabilities, labels = check_predictions(probabilities, labels, names)
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    pair = [torch.from_numpy(values.astype(np.float64))[None, None] for values in (confidence, correct)]
    mean_confidence, accuracy, images = (
        t[0, 0].numpy() for t in calibration_binning(pair[0], pair[1], num_bins=CALIBRATION_BINS)
    )
    left, width = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS, 1 / CALIBRATION_BINS

    figure, (upper, lower) = _grid(2, 1, (4.4, 2.6), f"Calibration\n{title}")
    grid: Any = upper.get_gridspec()
    grid.set_height_ratios([2.6, 1])
    upper.bar(
        left, np.nan_to_num(accuracy), width, align="edge", color=SKY, alpha=0.6, edgecolor="white", label="accuracy"
    )
    upper.plot(mean_confidence, accuracy, "o", color=BLUE, markersize=4, label="mean confidence")
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="calibrated")
    upper.legend(title=f"ECE {calibration_error(confidence, correct):.3f}", fontsize=8, loc="upper left")
    upper.set(ylabel="Accuracy", ylim=(0, 1.02))
    lower.bar(left, images, width, align="edge", color=GREY, edgecolor="white")
    lower.set(xlabel="Confidence (probability of the predicted class)", ylabel="Images")
    for axes in (upper, lower):
        axes.set_xlim(0, 1)
        _tidy(axes)
    _save(figure, path)


def case_grid(
    images: Sequence[ArrayLike],
    captions: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str,
    correct: Sequence[bool] | None = None,
    overlays: Sequence[ArrayLike] | None = None,
) -> None:
    """Draw single cases, four in a row, each windowed from its lowest to its highest value.

    Args:
        images: ``(H, W)`` each, rows first.
        captions: one for each image; line breaks are kept.
        path: the PNG file.
        title: what the cases are.
        correct: whether each prediction was right: its caption is then blue with a tick, or vermillion with a cross.
        overlays: heat maps from 0 to 1 of the images' shapes, drawn over a second copy beside each image.

    Raises:
        ValueError: no image, or other numbers of captions, flags or overlays.
    """
    marks = [("", "black")] * len(images) if correct is None else [_mark(right) for right in correct]
    heats = [None] * len(images) if overlays is None else overlays
    if not 0 < len(images) == len(captions) == len(marks) == len(heats):
        raise ValueError(f"Expected as many captions, flags and overlays as images ({len(images)}, at least 1).")
    figure, panels = _grid(len(images), 4, (2.4, 2.9) if overlays is None else (3.8, 2.5), title)
    for axes, image, caption, (mark, color), heat in zip(panels, images, captions, marks, heats, strict=True):
        _show_case(axes, np.asarray(image, dtype=float), heat)
        axes.set_axis_off()
        axes.set_title(mark + _text(caption, width=34), fontsize=8, color=color, loc="left")
    _save(figure, path)


def _mark(right: bool) -> tuple[str, str]:
    return ("✓ ", BLUE) if right else ("✗ ", VERMILLION)


def _show_case(axes: Axes, image: Array, heat: ArrayLike | None) -> None:
    """The image, and to its right, if there is a heat map, a copy under it: the stronger, the less transparent."""
    if heat is None:
        axes.imshow(image, cmap="gray")
        return
    heat = np.asarray(heat, dtype=float)
    if heat.shape != image.shape:
        raise ValueError(f"Expected an overlay of the image's shape {image.shape}, got {heat.shape}.")
    gap = np.full((len(image), max(1, image.shape[1] // 40)), np.nan)
    axes.imshow(np.hstack([image, gap, image]), cmap="gray")
    covered = np.hstack([np.zeros_like(image), np.zeros_like(gap), heat])
    axes.imshow(covered, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * covered)


def dice_strips(dice: ArrayLike, structures: Sequence[str], path: str | os.PathLike[str], *, title: str) -> None:
    """Draw the Dice of every slice, and a box from quartile to quartile with the median, for each structure.

    Args:
        dice: ``(N, K)``, NaN where undefined.
        structures: K names.
        path: the PNG file.
        title: the part and its size.
    """
    dice = np.asarray(dice, dtype=float)
    figure, (axes,) = _grid(1, 1, (max(3.6, 1.5 * len(structures)), 3.4), f"Dice of each slice\n{title}")
    spread = np.random.default_rng(0)
    for k, color in enumerate(_cycle(len(structures))):
        values = dice[~np.isnan(dice[:, k]), k]
        axes.plot(
            k + spread.uniform(-0.2, 0.2, len(values)), values, "o", color=color["color"], alpha=0.35, markersize=3
        )
        if len(values):
            axes.boxplot(values, positions=[k], widths=0.5, showfliers=False, medianprops={"color": "black"})
    names = [
        f"{_text(n, width=18, lines=2)}\n({c} slices)"
        for n, c in zip(structures, (~np.isnan(dice)).sum(0), strict=True)
    ]
    axes.set_xticks(range(len(structures)), names, fontsize=8)
    axes.set(ylabel="Dice", ylim=(-0.02, 1.02))
    _tidy(axes)
    _save(figure, path)


def bland_altman(volumes: ArrayLike, structures: Sequence[str], path: str | os.PathLike[str], *, title: str) -> None:
    """Draw the difference of predicted and true volumes against their mean, for each structure.

    Lines: the mean difference, and 1.96 standard deviations to both sides (limits of agreement).

    Args:
        volumes: ``(N, 2, K)``, true and predicted, in ml.
        structures: K names.
        path: the PNG file.
        title: the part and its size.

    References:
        Bland, Altman. Statistical methods for assessing agreement between two methods of clinical measurement.
        Lancet 327, 1986.
    """
    volumes = np.asarray(volumes, dtype=float)
    figure, panels = _grid(len(structures), 3, (3.2, 2.9), f"Volumes, predicted against true\n{title}")
    for k, (axes, name) in enumerate(zip(panels, structures, strict=True)):
        true, predicted = volumes[:, :, k].T
        difference = predicted - true
        mean, spread = difference.mean(), 1.96 * difference.std(ddof=1) if len(difference) > 1 else 0.0
        axes.plot((true + predicted) / 2, difference, "o", color=BLUE, alpha=0.6, markersize=4)
        axes.axhline(mean, color=VERMILLION, label=f"mean {mean:+.1f} ml")
        for limit in (mean - spread, mean + spread):
            axes.axhline(limit, color=GREY, linestyle="--")
        axes.set_title(
            f"{_text(name, width=26, lines=2)}\nlimits {mean - spread:+.1f} to {mean + spread:+.1f} ml", fontsize=9
        )
        axes.legend(fontsize=8, frameon=False)
        _tidy(axes)
    figure.supxlabel("Mean of both (ml)", fontsize=9)
    figure.supylabel("Predicted - true (ml)", fontsize=9)
    _save(figure, path)


def contour_grid(
    images: Sequence[ArrayLike],
    masks: Sequence[Sequence[ArrayLike]],
    captions: Sequence[str],
    structures: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str,
) -> None:
    """Draw slices, four in a row, with the contours of the truth (dashed) and of the prediction (solid).

    Args:
        images: ``(H, W)`` each, rows first; they are cut to the masks and their surroundings.
        masks: the true and the predicted label map of each, 0 being the background.
        captions: one for each image.
        structures: names of the labels 1, 2 ...
        path: the PNG file.
        title: what the slices are.
    """
    figure, panels = _grid(
        len(images), 4, (2.4, 2.9), f"{title}\n{', '.join(structures)}: truth dashed, prediction solid"
    )
    colors = [style["color"] for style in _cycle(len(structures))]
    for axes, image, pair, caption in zip(panels, images, masks, captions, strict=True):
        window = _around(np.maximum(*(np.asarray(mask) for mask in pair)) > 0)
        axes.imshow(np.asarray(image, dtype=float)[window], cmap="gray")
        for mask, style in zip(pair, ("--", "-"), strict=True):
            part = np.asarray(mask)[window]
            for k, color in enumerate(colors, start=1):
                if 0 < (part == k).sum() < part.size:
                    axes.contour(part == k, levels=[0.5], colors=[color], linestyles=style, linewidths=1)
        axes.set_axis_off()
        axes.set_title(_text(caption, width=34), fontsize=8, loc="left")
    _save(figure, path)


def _around(mask: Array) -> tuple[slice, ...]:
    """The mask's bounding box, widened by its own size or 16 pixels at least."""
    if not mask.any():
        return (slice(None), slice(None))
    ranges = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    room = max(16, *(int(r[-1] - r[0]) for r in ranges))
    return tuple(slice(max(0, r[0] - room), r[-1] + 1 + room) for r in ranges)


def last_map(network: nn.Module, layers: Sequence[str], image: Tensor) -> str | None:
    """The last of ``layers`` that gives maps, which :func:`grad_cam` can show; ``None`` where none does.

    After it there may be dense layers, as in LeNet, AlexNet and VGG, or tokens.

    Args:
        network: in evaluation mode.
        layers: names of modules, in their order.
        image: ``(B, channels, H, W)``, as the network takes it.
    """
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == image.ndim and max(output.shape[2:]) > 1:
                found.append(name)

        return keep

    handles = [network.get_submodule(name).register_forward_hook(look(name)) for name in layers]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return max(found, key=list(layers).index, default=None)


def grad_cam(network: nn.Module, layer: str, images: Tensor, classes: Sequence[int]) -> NDArray[np.float64]:
    """Where in each image the evidence for a class lies, by Grad-CAM.

    The feature maps of ``layer``, weighted by the mean gradient of the class's logit, summed, cut at 0, enlarged to the
    image and scaled to 0 to 1. MONAI's ``GradCAM`` uses backward hooks, which in-place activations forbid.

    Args:
        network: in evaluation mode, giving logits ``(B, C)``.
        layer: name of the module whose output has spatial axes.
        images: ``(B, channels, H, W)``, as the network takes them.
        classes: one for each image.

    Returns:
        ``(B, H, W)``; 0 everywhere where nothing speaks for the class.

    References:
        Selvaraju et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        kept.append(output.clone())
        return kept[-1]

    handle = network.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():  # frozen networks too
            logits = network(images.detach().requires_grad_())
            score = logits[torch.arange(len(images)), torch.as_tensor(classes)].sum()
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        handle.remove()
    heat = (kept[0] * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).clamp_min(0)
    heat = heat / heat.amax((2, 3), keepdim=True).clamp_min(1e-12)
    heat = nn.functional.interpolate(heat, images.shape[2:], mode="bilinear", align_corners=False)
    return heat[: len(images), 0].detach().cpu().double().numpy()
