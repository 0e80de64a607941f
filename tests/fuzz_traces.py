"""Damage traces and replay them: each must end in a result or in a clean error, in bounded time and memory.

usage: python -m tests.fuzz_traces [--count N] [--seed S] [--corpus DIR ...] [--largest BYTES] [--keep DIR]

The corpus is every trace below the folders given (default: tests/data/traces); of NVIDIA's (docs/bare-metal.md), those
whose files have at most so many bytes. A mutation changes a number, flips a bit of one, drops, repeats or moves a line,
or changes characters; some change a file of memory. More than 5 s, more than 1 GiB of address space beyond what
was used before the first, or any exception but the project's own is a failure: the trace is kept, and the exit status
is 1.
"""

import argparse
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nvdla_quant.emulator.decode.program import Limits
from nvdla_quant.errors import NvdlaQuantError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, TARGETS, Target
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.replay import replay
from nvdla_quant.registers.traces.files import read_trace, traces_in
from tests.register_programs import FOLDER

SECONDS = 5.0
MEMORY = 1 << 30
LIMITS = Limits(macs=10**8, memory=1 << 28)
EXTREMES = (0, 1, 2, 3, 7, 8, 31, 32, 255, 256, 4095, 8191, 65535, 1 << 16, 2**31, 2**32 - 1, 2**32, 2**64)
NUMBER = re.compile(r"0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class Sample:
    """A trace of the corpus: its files by name, the trace first, and its target."""

    files: Mapping[str, str]
    target: Target


def mutate_number(text: str, rng: random.Random) -> str:
    """Set a number to an extreme, flip a bit of it, or take that of another place."""
    found = list(NUMBER.finditer(text))
    if not found:
        return text
    match = rng.choice(found)
    value = int(match[0], 16)
    how = rng.randrange(4)
    if how == 0:
        value = rng.choice(EXTREMES)
    elif how == 1:
        value ^= 1 << rng.randrange(32)
    elif how == 2:
        value = int(rng.choice(found)[0], 16)
    else:
        value = max(0, value + rng.choice((-32, -8, -1, 1, 8, 32)))
    return f"{text[: match.start()]}{value:#x}{text[match.end() :]}"


def mutate_lines(text: str, rng: random.Random) -> str:
    """Drop, repeat or move a line."""
    lines = text.splitlines()
    if not lines:
        return text
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(4)
    if how == 0:
        del lines[place]
    elif how == 1:
        lines.insert(other, lines[place])
    elif how == 2:
        lines.insert(other, lines.pop(place))
    else:
        lines[place], lines[other] = lines[other], lines[place]
    return "\n".join(lines)


def mutate_characters(text: str, rng: random.Random) -> str:
    """Change, drop or add a few characters anywhere, or cut the text."""
    if rng.randrange(8) == 0:
        return text[: rng.randrange(len(text) + 1)]
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(text) + 1)
        put = "".join(rng.choice('0123456789abcdefx(),;.{}:_#/" \n\u00e9') for _ in range(rng.randrange(3)))
        text = text[:place] + put + text[place + rng.randrange(3) :]
    return text


MUTATIONS = (mutate_number, mutate_number, mutate_number, mutate_number, mutate_lines, mutate_characters)


def attempt(folder: Path, files: Mapping[str, str], target: Target) -> str:
    """Replay the first of `files`, written into `folder`; return how it ended."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    try:
        with np.errstate(all="ignore"):
            result = replay(read_trace(folder / next(iter(files)), register_map(target)), target, LIMITS)
    except NvdlaQuantError as error:
        return type(error).__name__
    return "held" if result.holds else "differed"


def mutated(sample: Sample, rng: random.Random) -> dict[str, str]:
    """Return the files of a sample, one of them changed; mostly the trace."""
    files = dict(sample.files)
    name = next(iter(files)) if rng.randrange(16) else rng.choice(list(files))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files[name] = rng.choice(MUTATIONS)(files[name], rng)
    return files


def fuzz(corpus: list[Sample], count: int, seed: int, keep: Path | None = None) -> tuple[Counter[str], float]:
    """Replay `count` mutations; return how often each ending came, failures as such, and the longest time (s)."""
    rng = random.Random(seed)
    endings: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(count):
            sample = rng.choice(corpus)
            files = mutated(sample, rng)
            start = time.perf_counter()
            try:
                ending = attempt(Path(temporary), files, sample.target)
            except Exception as error:
                ending = f"FAILURE {type(error).__name__}"
                traceback.print_exc()
            elapsed = time.perf_counter() - start
            slowest = max(slowest, elapsed)
            if elapsed > SECONDS:
                ending = "FAILURE took too long"
            endings[ending] += 1
            if ending.startswith("FAILURE") and keep is not None:
                folder = keep / f"seed{seed}-{number}-{sample.target.name}"
                folder.mkdir(parents=True, exist_ok=True)
                for name, text in files.items():
                    (folder / name).write_text(text, encoding="utf-8")
    return endings, slowest


def read_corpus(folders: list[Path], largest: int) -> list[Sample]:
    """Return the traces below `folders` that end in a result, with their files, which have at most `largest` bytes."""
    corpus = []
    for path in (path for folder in folders for path in traces_in(folder)):
        named = [path.parent / name for name in sorted(set(re.findall(r"[\w.]+\.dat", path.read_text())))]
        files = [path, *(file for file in named if file.is_file())]
        if sum(file.stat().st_size for file in files) > largest:
            continue
        target = TARGETS.get(path.parent.parent.name, NV_FULL if path.suffix == ".txn" else NV_SMALL)
        sample = Sample({file.name: file.read_text() for file in files}, target)
        with tempfile.TemporaryDirectory() as temporary:
            if attempt(Path(temporary), sample.files, target) == "held":
                corpus.append(sample)
    return corpus


def main() -> int:
    """Fuzz and print the endings."""
    parser = argparse.ArgumentParser(description="Fuzz the replay of traces.")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, nargs="+", default=[FOLDER])
    parser.add_argument("--largest", type=int, default=1 << 17)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for traces that failed")
    options = parser.parse_args()
    corpus = read_corpus(options.corpus, options.largest)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    start = time.perf_counter()
    endings, slowest = fuzz(corpus, options.count, options.seed, options.keep)
    for ending, times in endings.most_common():
        print(f"{times:9d}  {ending}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - start
    print(f"{options.count} mutations of {len(corpus)} traces, seed {options.seed}, in {seconds:.0f} s")
    print(f"slowest {slowest:.2f} s, peak {peak:.0f} MiB")
    return int(any(ending.startswith("FAILURE") for ending in endings))


if __name__ == "__main__":
    sys.exit(main())
