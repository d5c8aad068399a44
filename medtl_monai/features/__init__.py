"""Frozen features, computed once: what a network's frozen first blocks give for every image, kept and replayed."""

from .cache import FeatureCache
from .extract import extract_features
from .frozen import frozen_modules

__all__ = ["FeatureCache", "extract_features", "frozen_modules"]
