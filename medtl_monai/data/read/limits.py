"""How large an image may be, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

from ...utils import UserError

__all__ = ["MOST_VALUES", "UnreadableError", "check_size"]

MOST_VALUES = 2**30
"""Of one image; headers that say more are damaged, or meant to exhaust the memory."""


class UnreadableError(UserError):
    """A file that cannot be read.

    Attributes:
        name: of the file.
        reason: why, without the name.
    """

    def __init__(self, name: str | Path, reason: str) -> None:
        super().__init__(f"{name} cannot be read ({reason}): repair or remove it.")
        self.name, self.reason = str(name), reason


def check_size(name: str | Path, *shape: int) -> None:
    """Stop at an image of more than :data:`MOST_VALUES` values.

    Raises:
        UserError: naming it, and the shape that its header says.
    """
    count = 1
    for side in shape:
        count *= int(side)
    if not 0 < count <= MOST_VALUES:
        sides = " x ".join(str(int(side)) for side in shape)
        raise UserError(
            f"{name} says that it is {sides}: expected at least one and at most {MOST_VALUES} values; repair it, or "
            "leave it out."
        )
