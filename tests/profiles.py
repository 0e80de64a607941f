"""How many examples property tests try."""

from hypothesis import settings

LONG = 10_000


def examples(count: int) -> int:
    """Return `count`, or at least 10,000 where pytest runs with ``--hypothesis-profile long``."""
    return max(count, LONG) if settings.get_current_profile_name() == "long" else count
