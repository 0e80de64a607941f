"""A cluster for the tests of a file, and a checkout to submit."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slurm.cluster import Cluster, running


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as started:
        yield started


@pytest.fixture
def checkout(new_checkout: Callable[..., Path], least_config: dict[str, Any]) -> Path:
    made = new_checkout()
    (made / "config.yaml").write_text(yaml.safe_dump(least_config))
    return made
