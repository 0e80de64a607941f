"""The workflow on a real Slurm: the same bytes, crashes of the compute daemon, limits that hold.

``pytest --hypothesis-profile long tests/slurm`` also runs the whole default configuration, with eight jobs in flight.
"""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvdla_quant.jobs.provenance import differences, read_manifest
from tests.e2e.test_interrupt import artefacts
from tests.profiles import is_long
from tests.slurm.cluster import CPUS, LIMITS, Cluster, running, ways_to_limit, what_is_missing
from tests.sweeps import run

PLUGIN = "snakemake-executor-plugin-slurm"
MISSING = what_is_missing() or ("" if importlib.util.find_spec(PLUGIN.replace("-", "_")) else f"{PLUGIN} is missing")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here: {MISSING}")]
NETWORK = "results/tiny/noise/network/fold/weights.caffemodel"


def command(*arguments: str) -> list[str]:
    """Return the command that a user gives, but that it asks for the state of jobs more often, to be done sooner."""
    profile = ["--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "2"]
    return [sys.executable, "-m", "snakemake", *profile, "--jobs", str(CPUS), *arguments]


def submit(cluster: Cluster, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow of a checkout on the cluster."""
    return subprocess.run(
        command(*arguments), cwd=checkout, env=cluster.environment, capture_output=True, text=True, check=False
    )


@contextmanager
def interrupted(cluster: Cluster, checkout: Path, jobs: int, *arguments: str) -> Iterator[None]:
    """Run the workflow, do what the caller does once so many jobs have ended, and see that the run ends well."""
    output = checkout / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            command(*arguments), cwd=checkout, env=cluster.environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        while ended(checkout) < jobs:
            assert process.poll() is None, output.read_text()[-4000:]
            time.sleep(0.1)
        yield
        assert process.wait() == 0, output.read_text()[-4000:]
    finally:
        process.kill()
        process.wait()


def ended(checkout: Path) -> int:
    """Return how many jobs have ended: each leaves a file of its run time."""
    return len(list((checkout / "results" / "benchmarks").rglob("*.tsv")))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as started:
        yield started


@pytest.fixture
def checkout(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> Path:
    made = new_checkout()
    (made / "config.yaml").write_text(yaml.safe_dump(tiny_config))
    return made


def submissions(checkout: Path) -> int:
    return (checkout / "output.txt").read_text().count("has been submitted with SLURM jobid")


def test_the_compute_daemon_dies_and_comes_back(cluster: Cluster, checkout: Path, finished: Path) -> None:
    """It stays away until Slurm counts the node as lost; all is made in the end, with the bytes of a local run."""
    with interrupted(cluster, checkout, 6):
        cluster.kill_slurmd()
        cluster.wait_for_node("down")
        cluster.start_slurmd()
    assert artefacts(checkout) == artefacts(finished)
    assert submissions(checkout) < ended(checkout), "groups share submissions"


def test_the_node_loses_its_power(cluster: Cluster, checkout: Path, finished: Path) -> None:
    """Slurm gives its jobs back to the queue, and starts them again."""
    if not is_long():
        pytest.skip("long: pytest --hypothesis-profile long")
    with interrupted(cluster, checkout, 6):
        cluster.cut_power()
        cluster.start_slurmd()
    assert artefacts(checkout) == artefacts(finished)


def test_the_default_configuration(cluster: Cluster, new_checkout: Callable[..., Path]) -> None:
    """Eight jobs in flight, the daemon killed in the middle: the bytes of two cores without Slurm."""
    if not is_long():
        pytest.skip("long: pytest --hypothesis-profile long")
    local, submitted = new_checkout("resources"), new_checkout("resources")
    with interrupted(cluster, submitted, 60):
        cluster.kill_slurmd()
        cluster.wait_for_node("down")
        cluster.start_slurmd()
    done = run(local)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert artefacts(submitted) == artefacts(local)
    manifests = (read_manifest(folder / "results" / "manifest.json") for folder in (local, submitted))
    assert differences(*manifests) == []
    print(f"{len(artefacts(local))} artefacts, {ended(submitted)} jobs, {submissions(submitted)} submissions")


@pytest.mark.parametrize("way", LIMITS)
def test_a_job_that_asks_for_too_little_memory(checkout: Path, way: str) -> None:
    """Slurm kills it and Snakemake says so; a second attempt that asks for enough ends well."""
    if way not in ways_to_limit():
        pytest.skip("control groups (version 1) cannot be made here: that takes root and /sys/fs/cgroup to write in")
    with running(way) as limited:
        little = submit(limited, checkout, NETWORK, "--retries", "0", "--set-resources", "prepare_network:mem_mb=50")
        said = little.stdout + little.stderr
        assert little.returncode != 0, said[-4000:]
        assert "Error in rule prepare_network" in said
        # By control groups the job's state names the reason; by polling the job's log does.
        logs = "".join(path.read_text() for path in (checkout / ".snakemake" / "slurm_logs").rglob("*.log"))
        assert "OUT_OF_MEMORY" in said if way == "cgroup" else "exceeded memory limit" in logs
        assert not (checkout / NETWORK).exists()
        enough = "prepare_network:mem_mb=50 if attempt == 1 else 1000"
        again = submit(limited, checkout, NETWORK, "--retries", "1", "--set-resources", enough)
        assert again.returncode == 0, (again.stdout + again.stderr)[-4000:]
        assert (checkout / NETWORK).exists()


def test_a_job_that_takes_longer_than_it_says(cluster: Cluster, checkout: Path) -> None:
    """Slurm counts in minutes, so this takes more than one."""
    script = checkout / "scripts" / "prepare_network.py"
    script.write_text(f"import time\n\ntime.sleep(600)\n{script.read_text()}")
    late = submit(cluster, checkout, NETWORK, "--retries", "0", "--set-resources", "prepare_network:runtime=1")
    said = late.stdout + late.stderr
    assert late.returncode != 0
    assert "SLURM status is: 'TIMEOUT'" in said, said[-4000:]
    assert not (checkout / NETWORK).exists()
