"""Fixtures that every test may use."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of golden data that stands beside the developers' checkout; a user's clone has none."""
    if not SHARED.is_dir():
        pytest.skip("the developers' golden data (../shared) is not beside this checkout")
    return SHARED
