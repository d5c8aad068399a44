"""Synthetic cohorts, written as files in the layout of real ones."""

from .brain import brain_cohort, make_brain_cohort
from .dbt import dbt_cohort, make_dbt_cohort

__all__ = ["brain_cohort", "dbt_cohort", "make_brain_cohort", "make_dbt_cohort"]
