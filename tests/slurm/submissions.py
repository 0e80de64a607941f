"""What the tests on a real Slurm share: how they submit, and why they may have to be skipped."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import CPUS, Cluster, what_is_missing

PLUGIN = "snakemake-executor-plugin-slurm"
MISSING = what_is_missing() or ("" if importlib.util.find_spec(PLUGIN.replace("-", "_")) else f"{PLUGIN} is missing")
MARKS = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here: {MISSING}")]


IMPATIENT = """
import sys
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
sys.exit(main())
"""
"""Snakemake that asks every second how its jobs are; the plugin waits ten seconds longer each time that none ended."""


def command(*arguments: str) -> list[str]:
    """Return the command that a user gives, but that it asks for the state of jobs more often, to be done sooner."""
    profile = ["--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1"]
    return [sys.executable, "-c", IMPATIENT, *profile, "--jobs", str(CPUS), *arguments]


def submit(cluster: Cluster, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow of a checkout on the cluster."""
    return subprocess.run(
        command(*arguments), cwd=checkout, env=cluster.environment, capture_output=True, text=True, check=False
    )
