"""Metrics with patient-level confidence intervals, and their table.

The metrics themselves are MONAI's. What stands here is what MONAI leaves to its users: gathering them, saying why a
metric is undefined, and resampling patients rather than images.
"""

from .bootstrap import Bootstrap, add_intervals, patient_bootstrap
from .classification import (
    CALIBRATION_BINS,
    CLASSIFICATION_METRICS,
    calibration_error,
    check_predictions,
    classification_metrics,
    part_metrics,
    ranked_counts,
)
from .multilabel import check_findings, finding_metrics, part_findings
from .table import render_metrics

__all__ = [
    "CALIBRATION_BINS",
    "CLASSIFICATION_METRICS",
    "Bootstrap",
    "add_intervals",
    "calibration_error",
    "check_findings",
    "check_predictions",
    "classification_metrics",
    "finding_metrics",
    "part_findings",
    "part_metrics",
    "patient_bootstrap",
    "ranked_counts",
    "render_metrics",
]
