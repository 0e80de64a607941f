"""Fixtures that every test may use."""

import compileall
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
from tests import forks
from tests.exports import packed
from tests.fakes import CANARY
from tests.profiles import LONG, is_long
from tests.sweeps import compile_kernels, once, run, tiny_network

settings.register_profile("short", max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("long", settings.get_profile("short"), max_examples=LONG)
settings.load_profile("short")
# `pytest --hypothesis-profile long` runs the property tests that name no number of their own for hours, not seconds.

WORKFLOW = ("Snakefile", "config.yaml", "rules", "scripts", "envs", "schemas", "report", "profiles", "nvdla_quant")
REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


FIRST = ("slurm", "e2e", "workflow", "unit/verification")
"""Folders of tests that begin first: Slurm's wait, and nobody should wait at the end for a file of a minute."""


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package, once: hundreds of processes import it, and may be told to leave no bytecode themselves."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(REPOSITORY / "nvdla_quant", quiet=2)


def pytest_unconfigure() -> None:
    """End the processes that jobs were forked off."""
    forks.stop()


def pytest_xdist_auto_num_workers() -> int:
    """Run one more at a time than there are processors: the tests on Slurm do little but wait."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in the order in which they are done soonest."""
    items.sort(key=lambda item: _turn(item.path.relative_to(REPOSITORY / "tests")))


def _turn(path: Path) -> int:
    return next((turn for turn, folder in enumerate(FIRST) if path.is_relative_to(folder)), len(FIRST))


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
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the networks that PyTorch and Keras exported."""
    folder = tmp_path_factory.mktemp("exports")
    packed.unpack(folder)
    return folder


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
def least_config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """What proves that a whole run holds, whatever is in it: one int8 run; in the long form all of the tiny sweep."""
    return (
        tiny_config if is_long() else tiny_config | {"targets": ["nv_small"], "variants": tiny_config["variants"][1:]}
    )


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def compiled(repository: Path, common: Path) -> Path:
    """The package as it is in the checkout, with the kernels compiled that jobs would compile, each of them anew.

    They are compiled in the checkout, where other tests of this session need them too.
    """

    def make(folder: Path) -> None:
        compile_kernels(repository)
        shutil.copytree(repository / "nvdla_quant", folder / "nvdla_quant")

    return once(common / "compiled", make) / "nvdla_quant"


@pytest.fixture(scope="session")
def new_checkout(repository: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a copy of the workflow with the tiny model and images beside it."""

    def make(*more: str) -> Path:
        checkout = tmp_path_factory.mktemp("checkout")
        for name in (*WORKFLOW, *more):
            source = compiled if name == compiled.name else repository / name
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


Finish = Callable[[str, dict[str, Any]], Path]


@pytest.fixture(scope="session")
def finish(new_checkout: Callable[..., Path], common: Path, tmp_path_factory: pytest.TempPathFactory) -> Finish:
    """Return a function that copies a checkout in which a sweep has run to its end, once for all workers."""

    def make(name: str, config: dict[str, Any]) -> Path:
        def sweep(folder: Path) -> None:
            checkout = new_checkout()
            (checkout / "config.yaml").write_text(yaml.safe_dump(config))
            result = run(checkout)
            assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
            checkout.rename(folder)

        swept = once(common / name, sweep)
        return shutil.copytree(swept, tmp_path_factory.mktemp("finished") / "checkout", symlinks=True)

    return make


@pytest.fixture(scope="session")
def finished(finish: Finish, tiny_config: dict[str, Any]) -> Path:
    """A checkout in which the tiny sweep has run to its end; tests undo what they change in it."""
    return finish("tiny-sweep", tiny_config)


@pytest.fixture(scope="session")
def finished_least(request: pytest.FixtureRequest, finish: Finish, least_config: dict[str, Any]) -> Path:
    """The same of the least sweep."""
    return request.getfixturevalue("finished") if is_long() else finish("least-sweep", least_config)
