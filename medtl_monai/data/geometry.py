"""Masks brought onto their images by what both files say of their place in space; along which axis slices run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils import UserError
from .read.any import read_image
from .read.kinds import kind_of
from .read.nifti import nifti_place
from .read.place import Place

__all__ = ["brought", "place_of", "thickest_axis"]

Array = NDArray[Any]

_SAME = 0.25  # of a voxel; grids that differ by less are one
_THICK = 1.2  # times the next axis' spacing; less is isotropic
_COARSER = 2.05  # times larger or smaller voxels; more is another image's mask
_INSIDE = 0.5  # of what is marked must lie in the image


def place_of(name: str, key: str = "image") -> Place:
    """Where an image lies; of NIfTI by its header alone."""
    if kind_of(name) == "nifti":
        return nifti_place(name)
    array, meta = read_image(name, key=key)
    affine = np.asarray(meta["affine"], dtype=float)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0)) if meta.get("tells_spacing") else None
    return Place((*array.shape, 1, 1)[:3], affine if meta.get("located") else None, spacing)


def thickest_axis(shape: Sequence[int], spacing: Sequence[float] | None) -> int:
    """Along which axis of a file slices follow each other: the thickest, or the third where none is.

    Of a single slice it is the axis of length 1.

    Example:
        >>> thickest_axis((5, 40, 44), (8, 1.5, 1.5)), thickest_axis((60, 60, 60), (1, 1, 1))
        (0, 2)
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if single:
        return single[-1]
    if spacing is None:
        return 2
    *_, second, first = sorted(range(3), key=lambda axis: spacing[axis])
    return first if spacing[first] >= _THICK * spacing[second] else 2


def brought(mask: Array, affine: Array, place: Place, names: tuple[str, str]) -> Array:
    """A mask's values at the voxels of its image.

    Axes that are exchanged or run the other way, and shifts by whole voxels, are undone exactly; else the nearest voxel
    counts. Outside the mask is 0.

    Args:
        mask: ``(X, Y, Z)`` in the axes of its file.
        affine: of its voxels, ``(4, 4)``.
        place: of the image.
        names: of mask and image, for messages.

    Raises:
        UserError: most of what is marked lies outside the image, or the voxels differ too much in size.
    """
    assert place.affine is not None
    onto = np.linalg.inv(affine) @ place.affine  # from the image's indices to the mask's
    turn, shift = _in_voxels(onto, place.shape)
    if turn is not None:
        if np.array_equal(turn, np.eye(3)) and not shift.any():
            return mask  # one of another shape is another image's
        result = _picked(mask, turn, shift, place.shape)
    else:
        _check_scale(mask, affine, place, names)
        from scipy.ndimage import affine_transform

        result = affine_transform(mask, onto[:3, :3], onto[:3, 3], place.shape, order=0, mode="constant")
    _check_inside(mask, affine, place, names)
    return result


def _in_voxels(onto: Array, shape: Sequence[int]) -> tuple[Array | None, Array]:
    """The signed permutation and the shift that a map of indices is, ``None`` for others."""
    turn = np.rint(onto[:3, :3])
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij"), -1).reshape(-1, 3)
    shift = np.rint((ends @ (onto[:3, :3] - turn).T + onto[:3, 3]).mean(0))
    error = np.abs(ends @ (onto[:3, :3] - turn).T + onto[:3, 3] - shift).max()
    lengths = [*np.abs(turn).sum(0), *np.abs(turn).sum(1)]
    return (turn if lengths == [1] * 6 and error < _SAME else None), shift.astype(int)


def _picked(mask: Array, turn: Array, shift: Array, shape: Sequence[int]) -> Array:
    """The voxels that a signed permutation and a shift of indices name."""
    of = np.abs(turn).argmax(1)  # the image's axis that each axis of the mask follows
    indices = [int(turn[axis, of[axis]]) * np.arange(shape[of[axis]]) + shift[axis] for axis in range(3)]
    inside = [(index >= 0) & (index < n) for index, n in zip(indices, mask.shape, strict=True)]
    found = mask[np.ix_(*[index.clip(0, n - 1) for index, n in zip(indices, mask.shape, strict=True)])]
    for axis, there in enumerate(inside):
        if not there.all():
            found = np.where(there.reshape([-1 if k == axis else 1 for k in range(3)]), found, 0)
    return np.ascontiguousarray(found.transpose(np.argsort(of)))


def _check_scale(mask: Array, affine: Array, place: Place, names: tuple[str, str]) -> None:
    assert place.affine is not None
    ours, theirs = (np.sort(np.linalg.norm(a[:3, :3], axis=0)) for a in (place.affine, affine))
    most = 1.01 if mask.shape == place.shape else _COARSER  # as many voxels of another size: a header that is made up
    if (np.maximum(ours / theirs, theirs / ours) > most).any():
        raise UserError(_apart("voxels of another size than", mask, affine, place, names))


def _check_inside(mask: Array, affine: Array, place: Place, names: tuple[str, str]) -> None:
    assert place.affine is not None
    marked = np.argwhere(mask)
    if not len(marked):
        return
    back = np.linalg.inv(place.affine) @ affine
    at = np.rint(marked @ back[:3, :3].T + back[:3, 3])
    if ((at >= 0) & (at < place.shape)).all(1).mean() < _INSIDE:
        raise UserError(_apart("another place in space than", mask, affine, place, names))


def _apart(what: str, mask: Array, affine: Array, place: Place, names: tuple[str, str]) -> str:
    assert place.affine is not None
    return (
        f"the mask {names[0]} ({_geometry(mask.shape, affine)}) has {what} its image {names[1]} "
        f"({_geometry(place.shape, place.affine)}): give it the image's affine, or none (sform and qform code 0) if "
        "its voxels are the image's."
    )


def _geometry(shape: Sequence[int], affine: Array) -> str:
    sides = " x ".join(str(n) for n in shape)
    steps = " x ".join(f"{step:.3g}" for step in np.linalg.norm(affine[:3, :3], axis=0))
    centre = affine @ [*((np.array(shape[:3]) - 1) / 2), 1]
    return f"{sides} voxels of {steps} mm around {', '.join(f'{x:.4g}' for x in centre[:3])} mm"
