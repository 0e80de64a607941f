"""Limits of memory and time on a real Slurm."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slurm.cluster import LIMITS, Cluster, running, ways_to_limit
from tests.slurm.submissions import MARKS, command, submit

pytestmark = [*MARKS, pytest.mark.usefixtures("late")]
NETWORK = "results/tiny/noise/network/fold/weights.caffemodel"


@pytest.fixture(scope="module")
def late(
    cluster: Cluster, new_checkout: Callable[..., Path], least_config: dict[str, Any]
) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """A run whose job takes longer than it says, begun before all tests: Slurm counts in minutes."""
    checkout = new_checkout()
    (checkout / "config.yaml").write_text(yaml.safe_dump(least_config))
    script = checkout / "scripts" / "prepare_network.py"
    script.write_text(f"import time\n\ntime.sleep(600)\n{script.read_text()}")
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


def test_a_job_that_takes_longer_than_it_says(late: tuple[Path, "subprocess.Popen[str]"]) -> None:
    checkout, process = late
    said, _ = process.communicate()
    assert process.returncode != 0
    assert "SLURM status is: 'TIMEOUT'" in said, said[-4000:]
    assert not (checkout / NETWORK).exists()
