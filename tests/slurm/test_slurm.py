"""The workflow on a real Slurm whose nodes fail, and the limits of memory and time there.

In one file, so that one worker has all of it: a limit of time is passed after a minute at the soonest, in which the
other tests run. ``pytest --hypothesis-profile long tests/slurm`` also cuts the power, and runs the whole default
configuration with eight jobs in flight.
"""

import subprocess
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
from tests.slurm.cluster import LIMITS, Cluster, running, ways_to_limit
from tests.slurm.submissions import MARKS, command, submit
from tests.sweeps import run

pytestmark = [*MARKS, pytest.mark.usefixtures("late")]
NETWORK = "results/tiny/noise/network/fold/weights.caffemodel"
RUN = "results/tiny/noise/nv_small/int8-per-filter-entropy"
MEASURED = () if is_long() else (f"{RUN}/accuracy.json", f"{RUN}/verdict.json")
"""What is asked for where the cluster fails: a run from its images to what is measured, in the long form everything."""


@pytest.fixture(scope="module")
def late(
    new_checkout: Callable[..., Path], least_config: dict[str, Any]
) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """A run whose job takes longer than it says, begun before all tests: Slurm counts in minutes."""
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(least_config))
    script = checkout / "scripts" / "prepare_network.py"
    script.write_text(f"import time\n\ntime.sleep(600)\n{script.read_text()}")
    with running() as cluster:
        process = subprocess.Popen(
            command(NETWORK, "--retries", "0", "--set-resources", "prepare_network:runtime=1"),
            cwd=checkout,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        yield checkout, process
        process.kill()
        process.wait()


# ---- what crashes


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


def submissions(checkout: Path) -> int:
    return (checkout / "output.txt").read_text().count("has been submitted with SLURM jobid")


def assert_made_as(local: Path, checkout: Path) -> None:
    """All that was asked for is there, with the bytes of a local run."""
    made = artefacts(checkout)
    assert {name.removeprefix("results/") for name in MEASURED} <= made.keys()
    assert made.items() <= artefacts(local).items()


def test_the_compute_daemon_dies_and_comes_back(cluster: Cluster, checkout: Path, finished_least: Path) -> None:
    """It stays away until Slurm counts the node as lost; all is made in the end."""
    with interrupted(cluster, checkout, 4, *MEASURED):
        cluster.wait_for_node("mixed", "allocated")  # A job runs, which goes on without the daemon.
        cluster.kill_slurmd()
        cluster.wait_for_node("down")
        cluster.start_slurmd()
    assert_made_as(finished_least, checkout)
    assert submissions(checkout) < ended(checkout), "groups share submissions"


def test_the_node_loses_its_power(cluster: Cluster, checkout: Path, finished_least: Path) -> None:
    """Slurm gives its jobs back to the queue, and starts them again."""
    if not is_long():
        pytest.skip("long: pytest --hypothesis-profile long")
    with interrupted(cluster, checkout, 6):
        cluster.cut_power()
        cluster.start_slurmd()
    assert artefacts(checkout) == artefacts(finished_least)


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


# ---- limits


@pytest.mark.parametrize("way", LIMITS)
def test_a_job_that_asks_for_too_little_memory(checkout: Path, way: str) -> None:
    """Slurm kills it and Snakemake says so; a second attempt that asks for enough ends well."""
    if way not in ways_to_limit():
        pytest.skip("control groups (version 1) cannot be made here: that takes root and /sys/fs/cgroup to write in")
    enough = "prepare_network:mem_mb=50 if attempt == 1 else 1000"
    with running(way) as limited:
        done = submit(limited, checkout, NETWORK, "--retries", "1", "--set-resources", enough)
    said = done.stdout + done.stderr
    assert "Error in rule prepare_network" in said
    # By control groups the job's state names the reason; by polling the job's log does.
    logs = "".join(path.read_text() for path in (checkout / ".snakemake" / "slurm_logs").rglob("*.log"))
    assert "OUT_OF_MEMORY" in said if way == "cgroup" else "exceeded memory limit" in logs
    assert done.returncode == 0, said[-4000:]
    assert (checkout / NETWORK).exists()


def test_a_job_that_takes_longer_than_it_says(late: tuple[Path, "subprocess.Popen[str]"]) -> None:
    checkout, process = late
    said, _ = process.communicate()
    assert process.returncode != 0
    assert "SLURM status is: 'TIMEOUT'" in said, said[-4000:]
    assert not (checkout / NETWORK).exists()
