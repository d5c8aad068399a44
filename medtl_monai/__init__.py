"""Transfer learning for medical imaging on MONAI."""

__all__ = ["__version__"]

__version__ = "0.1.0"
