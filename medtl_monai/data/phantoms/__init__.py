"""Synthetic cohorts: seeded, small, and in the layouts of real ones."""

from .brain import brain_cohort, make_brain_cohort
from .cardiac import cardiac_cohort, make_cardiac_cohort
from .chest import chest_cohort, make_chest_cohort
from .dbt import dbt_cohort, make_dbt_cohort

__all__ = [
    "brain_cohort",
    "cardiac_cohort",
    "chest_cohort",
    "dbt_cohort",
    "make_brain_cohort",
    "make_cardiac_cohort",
    "make_chest_cohort",
    "make_dbt_cohort",
]
