"""How many examples property tests try, and whether long proofs run."""

from hypothesis import settings

LONG = 10_000


def is_long() -> bool:
    """Whether pytest runs with ``--hypothesis-profile long``, which is for hours."""
    return settings.get_current_profile_name() == "long"


def examples(count: int) -> int:
    """Return `count`, or at least 10,000 where pytest runs with ``--hypothesis-profile long``."""
    return max(count, LONG) if is_long() else count
