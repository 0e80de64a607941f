"""Time and memory of the default run, fresh and unchanged, and the speed of each kind of job that runs a loadable.

usage: python benchmarks/default_run.py [CORES] [--runs N]

Copies the checkout to a temporary folder, so that nothing is made yet and no kernel is compiled, and runs the workflow
fresh; fresh with compiled kernels, as often as asked; with nothing to do. What the workflow itself costs is the ratio
of a fresh run to the least that its jobs must take: the sum of their times over the cores. Rates of NVIDIA's C-model
are quoted from another machine and printed for scale alone; in fp16 it is bit-exact and the emulator is not.
"""

import argparse
import csv
import shutil
import statistics
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
SHARE, MORE = 1.15, 3.0
"""The bar of a run: this share of what its jobs must take, and seconds."""
Jobs = dict[str, list[dict[str, str]]]
"""Lines of Snakemake's benchmark files, by rule."""


def workflow(folder: Path, cores: str, *more: str) -> float:
    """Run the workflow in `folder`; return the seconds that it took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--quiet", "all", *more]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the workflow failed:\n{done.stderr}")
    return time.perf_counter() - start


def jobs(folder: Path) -> Jobs:
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


def overhead(seconds: float, folder: Path, cores: int) -> tuple[float, float]:
    """Return the least seconds that the jobs of a run must take on so many cores, and the bar for all of it."""
    least = sum(float(line["s"]) for lines in jobs(folder).values() for line in lines) / cores
    return least, SHARE * least + MORE


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Time and memory of the default run.")
    parser.add_argument("cores", nargs="?", type=int, default=2)
    parser.add_argument(
        "--runs", type=int, default=5, help="fresh runs with compiled kernels, of which the median counts"
    )
    options = parser.parse_args()
    cores = str(options.cores)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkout"
        shutil.copytree(CHECKOUT, folder, ignore=LEFT_OUT)
        cold = workflow(folder, cores)
        cold_least, cold_bar = overhead(cold, folder, options.cores)
        runs = []
        for _ in range(options.runs):
            shutil.rmtree(folder / "results")
            seconds = workflow(folder, cores)
            runs.append((seconds, *overhead(seconds, folder, options.cores)))
        warm, least, bar = (statistics.median(run[part] for run in runs) for part in range(3))
        nothing = workflow(folder, cores)
        benchmarks = jobs(folder)
        lines = [line for rule in benchmarks.values() for line in rule]
        largest = max(lines, key=lambda line: 0.0 if line["max_rss"] in ("-", "NA") else float(line["max_rss"]))
        head = f"bar: {SHARE} x + {MORE:g} s   ({len(lines)} jobs, {cores} cores)"
        print(f"{'':28}seconds  jobs' own / {cores}  ratio  {head}")
        print(f"fresh, kernels to compile   {cold:7.1f} {cold_least:14.1f} {cold / cold_least:6.2f} {cold_bar:8.1f}")
        print(f"fresh, median of {options.runs}          {warm:7.1f} {least:14.1f} {warm / least:6.2f} {bar:8.1f}")
        print(f"nothing to do               {nothing:7.1f}, ratio to fresh {nothing / cold:.3f}")
        print(f"largest job                 {float(largest['max_rss']):7.0f} MiB ({largest['path']})")
        print("rates of a job, its start left out; the C-model's are quoted, one thread of another machine")
        for kind, values in sorted(rates(folder).items()):
            mean = sum(values) / len(values)
            quoted = C_MODEL_RATES.get(kind)
            multiple = f", {mean / quoted:.0f} times the C-model's quoted {quoted:g}" if quoted else ""
            print(f"{kind:13} {mean:7.0f} images/s a job{multiple}")


if __name__ == "__main__":
    main()
