"""Data: folders into datalists, upright slices, splits by patient, leakage, phantoms."""

from .cases import Cases, present_classes, write_datalist
from .datasets import EXTENSIONS, load_cases, unlabelled
from .dicom import DicomReader, Header, header, is_dicom, read_frame, read_series, split_frame
from .layouts import LAYOUTS
from .leakage import LeakageReport, audit, perceptual_hash, raise_on_shared_patients
from .phantoms import (
    brain_cohort,
    chest_cohort,
    dbt_cohort,
    make_brain_cohort,
    make_chest_cohort,
    make_dbt_cohort,
)
from .readers import READERS, ToSliced, check_readable, read_grey
from .spacing import CheckSpacingd, suspicious_spacing
from .split import split_patients, write_split_csv

__all__ = [
    "EXTENSIONS",
    "LAYOUTS",
    "READERS",
    "Cases",
    "CheckSpacingd",
    "DicomReader",
    "Header",
    "LeakageReport",
    "ToSliced",
    "audit",
    "brain_cohort",
    "check_readable",
    "chest_cohort",
    "dbt_cohort",
    "header",
    "is_dicom",
    "load_cases",
    "make_brain_cohort",
    "make_chest_cohort",
    "make_dbt_cohort",
    "perceptual_hash",
    "present_classes",
    "raise_on_shared_patients",
    "read_frame",
    "read_grey",
    "read_series",
    "split_frame",
    "split_patients",
    "suspicious_spacing",
    "unlabelled",
    "write_datalist",
    "write_split_csv",
]
