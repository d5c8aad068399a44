"""Data: folders into datalists, upright slices, splits by patient, leakage, phantoms."""

from .boxes import BOX_COLUMNS, MarkLesiond
from .breast import FaceBreastd, JoinSidesd, MapLesiond, RandCropLesiond, face_breast, pair_sides
from .cached import cached_dataset, digest, stamped
from .cases import Cases, present_classes, write_datalist
from .check import check_cases, render_check
from .datasets import find_images, load_cases, unlabelled
from .dbt import GROUPS, breast_slices, load_breasts, repeat_minority, select_slices
from .find import EXTENSIONS
from .layouts import LAYOUTS
from .leakage import LeakageReport, audit, perceptual_hash, raise_on_shared_patients
from .phantoms import (
    brain_cohort,
    cardiac_cohort,
    chest_cohort,
    dbt_cohort,
    make_brain_cohort,
    make_cardiac_cohort,
    make_chest_cohort,
    make_dbt_cohort,
)
from .read.any import AnyReader
from .read.arrays import ArrayReader, read_array, split_array
from .read.contours import read_contour
from .read.dicom import DicomReader
from .read.dicom_header import Header, header, is_dicom, split_frame
from .read.dicom_pixels import read_frame
from .read.dicom_series import read_series
from .read.nifti import NiftiReader
from .readable import check_readable
from .scale import ScalePercentilesd
from .spacing import CheckSpacingd, suspicious_spacing
from .split import fold_patients, split_patients, write_split_csv
from .stacks import (
    AlwaysPresentd,
    CentreSquared,
    LoadStackd,
    SelectStructuresd,
    SliceDataset,
    read_stack,
    stack_of,
    tells_spacing,
    write_nifti,
)
from .upright import ToSliced, read_grey

__all__ = [
    "BOX_COLUMNS",
    "EXTENSIONS",
    "GROUPS",
    "LAYOUTS",
    "AlwaysPresentd",
    "AnyReader",
    "ArrayReader",
    "Cases",
    "CentreSquared",
    "CheckSpacingd",
    "DicomReader",
    "FaceBreastd",
    "Header",
    "JoinSidesd",
    "LeakageReport",
    "LoadStackd",
    "MapLesiond",
    "MarkLesiond",
    "NiftiReader",
    "RandCropLesiond",
    "ScalePercentilesd",
    "SelectStructuresd",
    "SliceDataset",
    "ToSliced",
    "audit",
    "brain_cohort",
    "breast_slices",
    "cached_dataset",
    "cardiac_cohort",
    "check_cases",
    "check_readable",
    "chest_cohort",
    "dbt_cohort",
    "digest",
    "face_breast",
    "find_images",
    "fold_patients",
    "header",
    "is_dicom",
    "load_breasts",
    "load_cases",
    "make_brain_cohort",
    "make_cardiac_cohort",
    "make_chest_cohort",
    "make_dbt_cohort",
    "pair_sides",
    "perceptual_hash",
    "present_classes",
    "raise_on_shared_patients",
    "read_array",
    "read_contour",
    "read_frame",
    "read_grey",
    "read_series",
    "read_stack",
    "render_check",
    "repeat_minority",
    "select_slices",
    "split_array",
    "split_frame",
    "split_patients",
    "stack_of",
    "stamped",
    "suspicious_spacing",
    "tells_spacing",
    "unlabelled",
    "write_datalist",
    "write_nifti",
    "write_split_csv",
]
