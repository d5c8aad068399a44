"""Data: folders into datalists, upright slices, splits by patient, leakage, phantoms."""

from .cases import Cases, write_datalist
from .check import check_cases, render_check
from .datasets import EXTENSIONS, load_cases, unlabelled
from .layouts import LAYOUTS
from .leakage import LeakageReport, audit, perceptual_hash, raise_on_shared_patients
from .phantoms import brain_cohort, chest_cohort, make_brain_cohort, make_chest_cohort
from .readers import READERS, ToSliced, check_readable, read_grey
from .split import split_patients, write_split_csv

__all__ = [
    "EXTENSIONS",
    "LAYOUTS",
    "READERS",
    "Cases",
    "LeakageReport",
    "ToSliced",
    "audit",
    "brain_cohort",
    "check_cases",
    "check_readable",
    "chest_cohort",
    "load_cases",
    "make_brain_cohort",
    "make_chest_cohort",
    "perceptual_hash",
    "raise_on_shared_patients",
    "read_grey",
    "render_check",
    "split_patients",
    "unlabelled",
    "write_datalist",
    "write_split_csv",
]
