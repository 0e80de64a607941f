"""The workflow on a real Slurm: the same bytes, whatever crashes of it.

``pytest --hypothesis-profile long tests/slurm`` also runs the whole default configuration, with eight jobs in flight.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvdla_quant.jobs.provenance import differences, read_manifest
from tests.e2e.test_interrupt import artefacts
from tests.profiles import is_long
from tests.slurm.cluster import Cluster
from tests.slurm.submissions import MARKS, command
from tests.sweeps import run

pytestmark = MARKS


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


def test_the_compute_daemon_dies_and_comes_back(cluster: Cluster, checkout: Path, finished_least: Path) -> None:
    """It stays away until Slurm counts the node as lost; all is made in the end, with the bytes of a local run."""
    with interrupted(cluster, checkout, 6):
        cluster.kill_slurmd()
        cluster.wait_for_node("down")
        cluster.start_slurmd()
    assert artefacts(checkout) == artefacts(finished_least)
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
