"""Jobs that share no disk: files come from a storage and go there, as profiles/kubernetes has it."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.test_interrupt import artefacts
from tests.sweeps import run_apart

PLUGIN = "snakemake_storage_plugin_fs"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(importlib.util.find_spec(PLUGIN) is None, reason="snakemake-storage-plugin-fs is not installed"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="snakemake-storage-plugin-fs copies with rsync"),
]


def test_every_file_in_a_storage(
    finished_least: Path, new_checkout: Callable[..., Path], least_config: dict[str, Any], tmp_path: Path
) -> None:
    """A folder in place of a bucket, which has the inputs and gets all results: the bytes of a run without."""
    checkout, bucket = new_checkout(), tmp_path / "bucket"
    (checkout / "config.yaml").write_text(yaml.safe_dump(least_config))
    bucket.mkdir()
    (checkout / "inputs").rename(bucket / "inputs")
    storage = "--default-storage-provider", "fs", "--default-storage-prefix", str(bucket)
    result = run_apart(checkout, *storage, "--shared-fs-usage", "none")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert not (checkout / "results").exists()
    assert artefacts(bucket) == artefacts(finished_least)
