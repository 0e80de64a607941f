"""How many examples property tests try, and whether long proofs run."""

from collections.abc import Mapping

from hypothesis import settings

from nvdla_quant.hardware.targets import TARGETS, Target

LONG = 10_000


def is_long() -> bool:
    """Whether pytest runs with ``--hypothesis-profile long``, which is for hours."""
    return settings.get_current_profile_name() == "long"


def examples(count: int) -> int:
    """Return `count`, or at least 10,000 where pytest runs with ``--hypothesis-profile long``."""
    return max(count, LONG) if is_long() else count


def has_turn(number: int, parts: int) -> bool:
    """Whether the case of this number is tried: one of every `parts` in the short form, in the long form all."""
    return is_long() or number % parts == 0


DIFFERENT = ("nv_full", "nv_large", "nv_small", "nv_medium_512")
"""Targets that between them have every atom of a MAC array, of memory and of the buffer, and every set of units."""


def targets() -> Mapping[str, Target]:
    """Return the targets that the compiler's layers and networks are tried on: in the long form all."""
    return TARGETS if is_long() else {name: TARGETS[name] for name in DIFFERENT}
