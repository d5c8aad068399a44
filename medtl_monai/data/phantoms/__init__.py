"""Synthetic cohorts, written as files in the layout of real ones."""

from .brain import brain_cohort, make_brain_cohort
from .cardiac import cardiac_cohort, make_cardiac_cohort

__all__ = ["brain_cohort", "cardiac_cohort", "make_brain_cohort", "make_cardiac_cohort"]
