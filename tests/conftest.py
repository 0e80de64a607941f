"""Fixtures that every test may use."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from tests.fakes import CANARY
from tests.profiles import LONG
from tests.sweeps import run, tiny_network

settings.register_profile("short", max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("long", settings.get_profile("short"), max_examples=LONG)
settings.load_profile("short")
# `pytest --hypothesis-profile long` runs the property tests that name no number of their own for hours, not seconds.

WORKFLOW = ("Snakefile", "config.yaml", "rules", "scripts", "envs", "schemas", "report", "profiles", "nvdla_quant")
REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


FIRST, LAST = ("slurm",), ("workflow", "e2e")
"""Folders of tests that begin first, since they wait, and that run last, with what the others compiled."""


def pytest_xdist_auto_num_workers() -> int:
    """Run one more at a time than there are processors: the tests on Slurm do little but wait."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in the order in which they are done soonest."""
    items.sort(key=lambda item: _turn(item.path.relative_to(REPOSITORY / "tests").parts[0]))


def _turn(folder: str) -> int:
    return -1 if folder in FIRST else LAST.index(folder) + 1 if folder in LAST else 0


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a shell read the name `tests.fakes.NASTY`."""
    path = tmp_path / "canary"
    monkeypatch.setenv(CANARY, str(path))
    yield
    assert not path.exists(), "a name reached a shell unquoted"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of golden data that stands beside the developers' checkout; a user's clone has none."""
    if not SHARED.is_dir():
        pytest.skip("the developers' golden data (../shared) is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    """Two targets, one int8 variant each, one fp16 variant: 3 runs."""
    return {
        "models": {
            "tiny": {
                "prototxt": "inputs/deploy.prototxt",
                "caffemodel": "inputs/tiny.caffemodel",
                "preprocessing": {"channels": "gray", "scale": 0.00390625},
            }
        },
        "datasets": {"noise": {"source": {"format": "npz", "path": "inputs/noise.npz"}, "calibration_pool": 16}},
        "cases": [{"model": "tiny", "dataset": "noise"}],
        "calibrators": {
            "entropy": {"method": "entropy", "images": 16, "batch_size": 8},
            "minmax": {"method": "minmax", "images": 16, "batch_size": 8},
        },
        "targets": ["nv_full", "nv_small"],
        "variants": [
            {"precision": "fp16", "targets": ["nv_full"]},
            {"precision": "int8", "mode": "per-filter", "calibrator": "entropy"},
        ],
    }


@pytest.fixture(scope="session")
def new_checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a copy of the workflow with the tiny model and images beside it."""

    def make(*more: str) -> Path:
        checkout = tmp_path_factory.mktemp("checkout")
        for name in (*WORKFLOW, *more):
            source = repository / name
            if source.is_dir():
                # With what was compiled of it: times of the files are kept, so jobs do not compile it again.
                shutil.copytree(source, checkout / name)
            else:
                shutil.copy(source, checkout / name)
        inputs = checkout / "inputs"
        inputs.mkdir()
        network = tiny_network(0)
        write_prototxt(network, inputs / "deploy.prototxt")
        write_caffemodel(network, inputs / "tiny.caffemodel")
        rng = np.random.default_rng(1)
        images, labels = rng.integers(0, 256, (48, 8, 8), np.uint8), rng.integers(0, 6, 48)
        np.savez(inputs / "noise.npz", images=images, labels=labels)
        return checkout

    return make


@pytest.fixture(scope="session")
def finished(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> Path:
    """A checkout in which the tiny sweep has run to its end; tests undo what they change in it."""
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(tiny_config))
    result = run(checkout)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return checkout
