"""How long `snakemake -n` takes for sweeps, beside a bare workflow of as many jobs: what Snakemake itself needs.

usage: python benchmarks/planning.py

The bare workflow is two rules, one after the other, with what each rule of this project has (a script, a log, a
benchmark, an environment, resources, a message), one input and one output, and not a single function.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
SEEDS = list(range(10))
SWEEPS = {
    "the default": {},
    "2 networks x 3 targets x 84 variants": {
        "calibrators": {
            name: {"method": name, "images": [8, 16, 32, 64, 128, 256, 500], "seed": SEEDS[:3]}
            for name in ("entropy", "minmax")
        },
        "variants": [{"precision": "int8", "mode": ["per-kernel", "per-filter"], "calibrator": ["entropy", "minmax"]}],
    },
    "1 network x 1 target x 500 variants": {
        "cases": [{"model": "lenet", "dataset": "mnist"}],
        "targets": ["nv_small"],
        "calibrators": {"entropy": {"method": "entropy", "images": list(range(20, 520, 20)), "seed": SEEDS}},
        "variants": [{"precision": "int8", "mode": ["per-kernel", "per-filter"], "calibrator": "entropy"}],
    },
}
BARE_RULE = """
rule {name}:
    input:
        "{input}",
    output:
        "{{i}}.{name}",
    log:
        "logs/{{i}}.{name}",
    benchmark:
        "benchmarks/{{i}}.{name}"
    conda:
        "environment.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        code="0",
    message:
        "Make {{wildcards.i}}.{name}"
    script:
        "script.py"
"""


def bare_workflow(folder: Path, jobs: int) -> None:
    """Write a workflow of `jobs` jobs besides `all`."""
    targets = [f'"{i}.second",' for i in range(jobs // 2)]
    rules = "".join(
        BARE_RULE.format(name=name, input=given) for name, given in (("first", "start"), ("second", "{i}.first"))
    )
    (folder / "Snakefile").write_text(f"rule all:\n    input:\n        {' '.join(targets)}\n{rules}")
    for name in ("start", "script.py", "environment.yaml"):
        (folder / name).touch()


def plan(folder: Path, *arguments: str) -> tuple[float, int]:
    """Return seconds (the best of three) and jobs of a dry run in `folder`."""
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", *arguments]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds), int(re.findall(r"^total +(\d+)$", result.stdout + result.stderr, re.MULTILINE)[-1])


def main() -> None:
    """Plan and print."""
    for name, settings in SWEEPS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "sweep.yaml").write_text(yaml.safe_dump(settings))
            # Nothing is made yet in an empty folder, whatever the checkout's own results are.
            inputs = ["--snakefile", str(CHECKOUT / "Snakefile"), "--configfile", str(folder / "sweep.yaml")]
            for given in ("config.yaml", "resources"):
                (folder / given).symlink_to(CHECKOUT / given)
            seconds, jobs = plan(folder, *inputs)
            bare_workflow(folder, jobs - 1)
            bare, _ = plan(folder)
        print(f"{name:38} {jobs:5} jobs {seconds:6.1f} s, bare {bare:5.1f} s, ratio {seconds / bare:.2f}")


if __name__ == "__main__":
    main()
