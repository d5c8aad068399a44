"""Running a network: in half precision, on several views or the most suspicious places, by other runtimes."""

from .amp import AmpInferer
from .places import SuspiciousPlaceInferer
from .runtimes import RUNTIMES, Exported
from .views import MultiViewInferer

__all__ = ["RUNTIMES", "AmpInferer", "Exported", "MultiViewInferer", "SuspiciousPlaceInferer"]
