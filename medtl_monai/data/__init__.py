"""Data: folders into datalists, upright slices, splits by patient, leakage, phantoms."""

from .cases import Cases, write_datalist
from .datasets import EXTENSIONS, load_cases, unlabelled
from .layouts import LAYOUTS
from .leakage import LeakageReport, audit, perceptual_hash, raise_on_shared_patients
from .phantoms import (
    brain_cohort,
    cardiac_cohort,
    chest_cohort,
    make_brain_cohort,
    make_cardiac_cohort,
    make_chest_cohort,
)
from .readers import READERS, ToSliced, check_readable, read_grey
from .split import split_patients, write_split_csv
from .stacks import (
    CentreSquared,
    LoadStackd,
    SelectStructuresd,
    SliceDataset,
    read_stack,
    stack_of,
    tells_spacing,
    write_nifti,
)

__all__ = [
    "EXTENSIONS",
    "LAYOUTS",
    "READERS",
    "Cases",
    "CentreSquared",
    "LeakageReport",
    "LoadStackd",
    "SelectStructuresd",
    "SliceDataset",
    "ToSliced",
    "audit",
    "brain_cohort",
    "cardiac_cohort",
    "check_readable",
    "chest_cohort",
    "load_cases",
    "make_brain_cohort",
    "make_cardiac_cohort",
    "make_chest_cohort",
    "perceptual_hash",
    "raise_on_shared_patients",
    "read_grey",
    "read_stack",
    "split_patients",
    "stack_of",
    "tells_spacing",
    "unlabelled",
    "write_datalist",
    "write_nifti",
    "write_split_csv",
]
