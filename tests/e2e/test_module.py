"""The workflow as a module of another one, read from a repository on GitHub, with the package installed."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.sweeps import MEASURED, run_apart

pytestmark = pytest.mark.e2e

MODULE = """configfile: "config.yaml"


module quant:
    snakefile:
        github("someone/nvdla-quant", path="workflow/Snakefile", tag="v0")
    config:
        config


use rule * from quant
"""


def git(folder: Path, *arguments: str) -> None:
    identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, env=os.environ | identity)


@pytest.fixture(scope="module")
def work(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Return a workflow that has this one as its module, of which Snakemake has a clone in its cache: no network."""
    tmp_path = tmp_path_factory.mktemp("module")
    checkout, work = new_checkout("workflow"), tmp_path / "work"
    git(checkout, "init", "--quiet")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "all")
    git(checkout, "tag", "v0")
    clone = tmp_path / "cache/snakemake/snakemake/source-cache/snakemake-git-cache/github.com/someone/nvdla-quant"
    git(checkout, "clone", "--quiet", "--bare", ".", str(clone))
    (checkout / "inputs").rename(tmp_path / "inputs")
    work.mkdir()
    (tmp_path / "inputs").rename(work / "inputs")
    (work / "Snakefile").write_text(MODULE)
    int8 = {"precision": "int8", "mode": "per-filter", "calibrator": "entropy"}
    (work / "config.yaml").write_text(yaml.safe_dump(tiny_config | {"targets": ["nv_small"], "variants": [int8]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        yield work


def test_a_module_from_a_repository_runs_with_the_installed_package(work: Path) -> None:
    finished = run_apart(work, *MEASURED)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert (work / "results/tiny/noise/nv_small/int8-per-filter-entropy/verdict.json").is_file()
    assert [path.name for path in (work / ".snakemake/nvdla-quant").iterdir()] == ["nvdla_quant"]
    again = run_apart(work, *MEASURED, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_package_that_is_not_installed_is_one_line(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "sitecustomize.py").write_text("import sys\nsys.modules['nvdla_quant'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(work))
    finished = run_apart(work, "--dry-run")
    assert finished.returncode != 0
    assert "the package is not installed where Snakemake runs" in finished.stderr
    assert "Traceback" not in finished.stderr
