"""Run times, and how integers were multiplied: from benchmark files and logs of jobs, which are no artefacts."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

from nvdla_quant.errors import ReportError
from nvdla_quant.report.frames import Row

RUNNERS = ("run_loadable", "run_on_device")
"""Rules whose jobs take long: one for each shard of each run."""
JOB_SECONDS = 300
"""What a job of theirs should take: minutes, so that its start, and its place in a cluster's queue, weigh little."""
_KERNEL = re.compile(r"int8 convolutions: (\w+)")
"""As the emulator says it, once a process."""


def read_kernels(pattern: str) -> Mapping[str, int]:
    """Return how many jobs computed int8 convolutions in each way, from their logs.

    Parameters
    ----------
    pattern : str
        Logs of the jobs that run loadables, with ``*`` for wildcards, relative to the working directory.
    """
    said = (_KERNEL.search(path.read_text("utf-8", errors="replace")) for path in sorted(Path().glob(pattern)))
    return Counter(match[1] for match in said if match)


def read_times(patterns: Mapping[str, str]) -> list[Row]:
    """Return jobs, seconds and memory of each rule, those that took longest first.

    Parameters
    ----------
    patterns : Mapping[str, str]
        Benchmark files by the rule that writes them, with ``*`` for wildcards, relative to the working directory.

    Raises
    ------
    ReportError
        A file is not what Snakemake writes.
    """
    found: list[Row] = []
    for rule, pattern in patterns.items():
        jobs = [job for path in sorted(Path().glob(pattern)) for job in _read(path)]
        if jobs:
            seconds = [job[0] for job in jobs]
            found.append(
                {
                    "rule": rule,
                    "jobs": len(jobs),
                    "seconds": round(sum(seconds), 1),
                    "longest": round(max(seconds), 1),
                    "memory": round(max(job[1] for job in jobs)),
                }
            )
    return sorted(found, key=lambda row: -float(str(row["seconds"])))


def shards_for(times: Sequence[Row], shards: int) -> int | None:
    """Return how many shards keep jobs that run a loadable at `JOB_SECONDS`; None where no job has run one.

    Parameters
    ----------
    times : sequence of Row
        From `read_times`.
    shards : int
        The number that they were measured with.
    """
    longest = [float(str(row["longest"])) for row in times if row["rule"] in RUNNERS]
    return max(1, ceil(max(longest) * shards / JOB_SECONDS)) if longest else None


def _read(path: Path) -> list[tuple[float, float]]:
    """Return seconds and MiB of each line; Snakemake measures no memory of a job that ends at once."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
        times = [
            (float(line["s"]), 0.0 if line["max_rss"] in ("-", "NA") else float(line["max_rss"])) for line in lines
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise ReportError(f"{path}: not a benchmark file ({error!r}); remove it and run again") from error
    if not times:
        raise ReportError(f"{path}: not a benchmark file, it has no line; remove it and run again")
    return times
