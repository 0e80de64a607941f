"""Helpers of the workflow tests: a tiny network, dry runs, whole runs within this process and in another."""

import contextlib
import fcntl
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from snakemake.api import SnakemakeApi
from snakemake.cli import main
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, GroupSettings, OutputSettings, ResourceSettings

from nvdla_quant.network.graph import Convolution, InnerProduct, Layer, Network, Pooling, ReLU, Softmax, Tensor
from tests.forks import forked_jobs

Jobs = dict[str, int]
"""How many jobs of each rule would run."""


def tiny_network(seed: int) -> Network:
    """Convolution, ReLU, pooling, fully connected, Softmax over 1 x 8 x 8 images; random weights."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    layers = (
        Layer("conv1", Convolution(weights(4, 1, 3, 3), weights(4)), ("data",)),
        Layer("relu1", ReLU(), ("conv1",)),
        Layer("pool1", Pooling("max", (2, 2), (2, 2)), ("relu1",)),
        Layer("ip1", InnerProduct(weights(6, 36), weights(6)), ("pool1",)),
        Layer("prob", Softmax(), ("ip1",)),
    )
    shapes = {
        "data": (1, 8, 8),
        "conv1": (4, 6, 6),
        "relu1": (4, 6, 6),
        "pool1": (4, 3, 3),
        "ip1": (6,),
        "prob": (6,),
    }
    tensors = {name: Tensor(name, shape, "conv1" if name == "relu1" else name) for name, shape in shapes.items()}
    return Network("tiny", (tensors["data"],), layers, tensors)


def plan(checkout: Path, config: dict[str, Any], groups: dict[str, str] | None = None) -> Jobs:
    """Jobs that a dry run in `checkout` lists, by rule, without `all`; its configuration is afterwards as before.

    `groups` are those of `--groups`.
    """
    table = _dry_run(checkout, config, groups)[0].rpartition("Job stats:")[2]
    rows = re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}


def memory_asked(checkout: Path, config: dict[str, Any]) -> dict[str, set[str]]:
    """Return ``mem_mb`` of the jobs of a dry run, by rule, as Snakemake prints it; otherwise as `plan`."""
    return _dry_run(checkout, config)[1]


def _dry_run(
    checkout: Path, config: dict[str, Any], groups: dict[str, str] | None = None
) -> tuple[str, dict[str, set[str]]]:
    """Return what a dry run prints, and what the jobs of each rule ask for."""
    configfile = checkout / "config.yaml"
    configured = configfile.read_bytes()
    configfile.write_text(yaml.safe_dump(config))
    printed = io.StringIO()
    quiet = {Quietness.HOST, Quietness.REASON}
    before, path = Path.cwd(), list(sys.path)
    try:
        with (
            contextlib.redirect_stderr(printed),
            contextlib.redirect_stdout(printed),
            SnakemakeApi(OutputSettings(dryrun=True, quiet=quiet)) as api,
        ):
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=2),
                config_settings=ConfigSettings(configfiles=[configfile]),
                snakefile=checkout / "Snakefile",
                workdir=checkout,
            )
            grouped = GroupSettings(overwrite_groups=groups or {})
            workflow.dag(DAGSettings()).execute_workflow(executor="dryrun", group_settings=grouped)
            asked: dict[str, set[str]] = {}
            for job in workflow._workflow.dag.jobs:  # Snakemake's interface has no way to them.
                asked.setdefault(job.rule.name, set()).add(str(job.resources.get("mem_mb")))
    finally:
        configfile.write_bytes(configured)
        os.chdir(before)
        sys.path[:] = path
    return printed.getvalue(), asked


MEASURED = ("--omit-from", "plot_figures")
"""For runs that draw no figures and write no page: a third of the time of a tiny sweep."""


def run_apart(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run snakemake in `checkout` as a user does, in a process of its own, with the interpreter of the tests."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Do the same within this process, which has imported already what takes two seconds to; jobs are forked."""
    printed, errors = io.StringIO(), io.StringIO()
    before, path = Path.cwd(), list(sys.path)
    os.chdir(checkout)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors), forked_jobs():
            main(["--cores", "2", *arguments])
        status: object = 0
    except SystemExit as ended:
        status = ended.code
        if isinstance(status, str):  # As the interpreter does at its end.
            errors.write(f"{status}\n")
            status = 1
    finally:
        os.chdir(before)
        sys.path[:] = path
    return subprocess.CompletedProcess(arguments, int(str(status or 0)), printed.getvalue(), errors.getvalue())


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Let the first process that asks for a folder make it, and the others wait; what failed is made anew."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(folder)
    return folder


KERNELS = """
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Precision
from tests.sweeps import tiny_network
from tests.verified import compiled_case
compiled_case(tiny_network(0), NV_FULL, Precision.FP16, None).verify()
for target in (NV_FULL, NV_SMALL):
    compiled_case(tiny_network(0), target, Precision.INT8, "per-filter").verify()
"""


def compile_kernels(folder: Path) -> None:
    """Have numba compile what the tiny sweep needs of the package that lies in `folder`, and keep it there."""
    path = os.pathsep.join((str(folder), str(Path(__file__).parent.parent)))
    subprocess.run([sys.executable, "-c", KERNELS], cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=True)
