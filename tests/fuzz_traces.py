"""Damage traces and replay them: each must end in a result or in a clean error, in bounded time and memory.

usage: python -m tests.fuzz_traces [--count N] [--seed S] [--corpus DIR ...] [--largest BYTES] [--keep DIR]

The corpus is every trace below the folders given (default: tests/data/traces); of NVIDIA's (docs/bare-metal.md), those
whose files have at most so many bytes. A mutation changes a number, flips a bit of one, drops, repeats or moves a line,
or changes characters; some change a file of memory. More than 5 s, more than 1 GiB of address space beyond what
was used before the first, or any exception but the project's own is a failure: the trace is kept, and the exit status
is 1.

130,000 of NVIDIA's traces and of the project's own, on a machine with a processor and 2 GiB for each of 13 processes::

    seq 1 13 | xargs -P 13 -I N python -m tests.fuzz_traces --count 10000 --seed N --keep failures \\
        --corpus tests/data/traces hw/verif/tests/trace_tests hw-nvdlav1/verif/traces/traceplayer
"""

import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nvdla_quant.emulator.decode.program import Limits
from nvdla_quant.errors import NvdlaQuantError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, TARGETS, Target
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.replay import replay
from nvdla_quant.registers.traces.files import read_trace, traces_in
from tests.fuzzing import Attempt, Outcome, parser, report, run_all
from tests.register_programs import FOLDER

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
    _write(files, folder)
    try:
        with np.errstate(all="ignore"):
            result = replay(read_trace(folder / next(iter(files)), register_map(target)), target, LIMITS)
    except NvdlaQuantError as error:
        return type(error).__name__
    return "held" if result.holds else "differed"


def _write(files: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def mutated(sample: Sample, rng: random.Random) -> dict[str, str]:
    """Return the files of a sample, one of them changed; mostly the trace."""
    files = dict(sample.files)
    name = next(iter(files)) if rng.randrange(16) else rng.choice(list(files))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files[name] = rng.choice(MUTATIONS)(files[name], rng)
    return files


def fuzz(corpus: list[Sample], count: int, seed: int, keep: Path | None = None) -> Outcome:
    """Replay `count` mutations."""
    with tempfile.TemporaryDirectory() as temporary:
        return run_all(_attempts(corpus, count, random.Random(seed), Path(temporary)), seed, keep)


def _attempts(corpus: list[Sample], count: int, rng: random.Random, folder: Path) -> Iterator[Attempt]:
    for _ in range(count):
        sample = rng.choice(corpus)
        files = mutated(sample, rng)
        yield Attempt(partial(attempt, folder, files, sample.target), partial(_keep, files, sample.target))


def _keep(files: Mapping[str, str], target: Target, path: Path) -> None:
    _write(files, path.with_name(f"{path.name}-{target.name}"))


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
    reading = parser("Fuzz the replay of traces.", FOLDER)
    reading.add_argument("--largest", type=int, default=1 << 17)
    options = reading.parse_args()
    corpus = read_corpus(options.corpus, options.largest)
    what = f"{options.count} mutations of {len(corpus)} traces, seed {options.seed}"
    return report(lambda: fuzz(corpus, options.count, options.seed, options.keep), what)


if __name__ == "__main__":
    sys.exit(main())
