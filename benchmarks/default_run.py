"""Time and memory of the default run, fresh and unchanged, and the speed of each kind of job that runs a loadable.

usage: python benchmarks/default_run.py [CORES]

Copies the checkout to a temporary folder, so that nothing is made yet and no kernel is compiled, and runs the workflow
three times: fresh; fresh with compiled kernels; with nothing to do. Rates of NVIDIA's C-model are quoted from another
machine and printed for scale alone; in fp16 it is bit-exact and the emulator is not.
"""

import csv
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info", "tests", "docs")
C_MODEL_RATES = {"int8 nv_full": 30.0, "int8 nv_small": 6.6, "fp16 nv_full": 1.8}
"""LeNet images a second quoted for NVIDIA's C-model, one thread of another machine."""


def run(folder: Path, cores: str) -> float:
    """Return the wall time of a run in seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--quiet", "all"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def jobs(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Return snakemake's benchmark of each job, by rule."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    root = folder / "results" / "benchmarks"
    for path in root.rglob("*.tsv"):
        parts = path.relative_to(root).parts
        rule = parts[2] if len(parts) > 2 else path.stem
        with path.open() as file:
            found[rule].extend({**line, "path": "/".join(parts)} for line in csv.DictReader(file, delimiter="\t"))
    return found


def rates(folder: Path) -> dict[str, list[float]]:
    """Return images a second, start-up of the job left out, by precision and target, from the last line of each log."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in (folder / "results" / "logs").rglob("run_loadable/*/*/*.log"):
        target, variant = path.parts[-3:-1]
        words = path.read_text().splitlines()[-1].split()
        found[f"{variant.split('-')[0]} {target}"].append(float(words[words.index("images/s,") - 1]))
    return found


def main() -> None:
    """Run and print."""
    cores = sys.argv[1] if len(sys.argv) > 1 else "2"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkout"
        shutil.copytree(CHECKOUT, folder, ignore=LEFT_OUT)
        cold = run(folder, cores)
        shutil.rmtree(folder / "results")
        warm, nothing = run(folder, cores), run(folder, cores)
        benchmarks = jobs(folder)
        lines = [line for rule in benchmarks.values() for line in rule]
        largest = max(lines, key=lambda line: float(line["max_rss"]))
        print(f"fresh, kernels to compile   {cold:7.1f} s on {cores} cores, {len(lines)} jobs")
        print(f"fresh, kernels compiled     {warm:7.1f} s")
        print(f"nothing to do               {nothing:7.1f} s, ratio to fresh {nothing / cold:.3f}")
        print(f"largest job                 {float(largest['max_rss']):7.0f} MiB ({largest['path']})")
        print("rates of a job, its start left out; the C-model's are quoted, one thread of another machine")
        for kind, values in sorted(rates(folder).items()):
            mean = sum(values) / len(values)
            quoted = C_MODEL_RATES.get(kind)
            multiple = f", {mean / quoted:.0f} times the C-model's quoted {quoted:g}" if quoted else ""
            print(f"{kind:13} {mean:7.0f} images/s a job{multiple}")


if __name__ == "__main__":
    main()
