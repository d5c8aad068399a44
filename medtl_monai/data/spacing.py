"""Spacing that a file claims but cannot be true."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

__all__ = ["CheckSpacingd", "suspicious_spacing"]

_FLAT = 3.0  # a volume whose longest axis has this many times the voxels of its shortest is rarely isotropic

_UNITS = {1: "metres", 3: "micrometres"}  # NIfTI's xyzt_units, bits 0 to 2; 2 is mm, 0 unknown

_log = logging.getLogger("medtl_monai")


def suspicious_spacing(volume: MetaTensor) -> str | None:
    """Why the spacing of a loaded volume, ``(X, Y, Z)`` or channel first, is not to be trusted; ``None`` if it may be.

    Converters that know no spacing write 1 mm. That is told by NIfTI headers whose sform and qform code are both 0,
    and by 1.0 along all axes where the longest has at least three times the voxels of the shortest. Headers in metres
    or micrometres are read as the numbers that they hold, in mm.

    Example:
        >>> suspicious_spacing(MetaTensor(np.zeros((256, 256, 24)), affine=np.eye(4)))
        'its spacing is 1.0 mm along all axes, which hardly fits 256 x 256 x 24 voxels'
    """
    shape = [int(n) for n in volume.shape[-3:]]
    codes: list[Any] = [volume.meta.get(key) for key in ("sform_code", "qform_code")]
    if None not in codes and not any(int(code) for code in codes):
        return "its NIfTI header gives no position in space (sform and qform code 0), so its spacing may be made up"
    unit = _UNITS.get(int(volume.meta.get("xyzt_units", 0)) & 7)
    if unit:
        return f"its NIfTI header says {unit}, and its spacing is read as mm: write the header in mm"
    ones = np.allclose(np.asarray(volume.pixdim, dtype=float), 1.0, atol=1e-6)
    if ones and min(shape) > 1 and max(shape) >= _FLAT * min(shape):
        return f"its spacing is 1.0 mm along all axes, which hardly fits {' x '.join(map(str, shape))} voxels"
    return None


class CheckSpacingd(MapTransform):
    """Log a warning for each volume whose spacing looks made up; follows ``LoadImaged(image_only=True)``.

    Distances, volumes in ml and resampling by spacing are wrong on such data.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items."""
        for key in self.key_iterator(dict(data)):
            reason = suspicious_spacing(data[key])
            if reason:
                _log.warning(f"{data[key].meta.get('filename_or_obj', 'a volume')}: {reason}.")
        return dict(data)
