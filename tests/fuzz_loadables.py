"""Damage loadables and run them: each must end in a result or in a clean error, in bounded time and memory.

usage: python -m tests.fuzz_loadables [--count N] [--seed S] [--corpus DIR ...] [--keep DIR]

The corpus is every ``.nvdla`` below the folders given (default: tests/data), and loadables of single operations that no
compiler makes (tests/unit_loadables.py). A mutation flips bytes, cuts the file,
sets a field of a descriptor to an extreme, or changes an entry of the loadable's lists. Each is read, decoded with a
limit of 1e8 multiply-accumulates, and run for two images. More than 5 s, more than 1 GiB of address space beyond what
was used before the first, or any exception but the project's own is a failure: the file is kept, and the exit status
is 1.
"""

import contextlib
import dataclasses
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from nvdla_quant.emulator.decode.program import Limits, Program, decode
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import NvdlaQuantError
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.writer import serialize_loadable
from tests.fuzzing import Attempt, Outcome, parser, report, run_all
from tests.unit_loadables import unit_loadables

LIMITS = Limits(macs=10**8)
EXTREMES = (0, 1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 4095, 4096, 8191, 8192, 65535, 2**31 - 1, 2**32 - 1)
LISTS = ("tasks", "memories", "addresses", "tensors", "submits")


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Keep the beginning."""
    return data[: rng.randrange(len(data))]


def descriptor(data: bytes, rng: random.Random) -> bytes:
    """Set 1, 2 or 4 bytes of the descriptors of a task to an extreme."""
    loadable = parse_loadable(data)
    candidates = [i for i, blob in enumerate(loadable.blobs) if blob.interface and blob.data]
    if not candidates:
        return data
    index = rng.choice(candidates)
    blob = loadable.blobs[index]
    content = bytearray(blob.data)
    width = rng.choice((1, 2, 4))
    place = rng.randrange(0, max(len(content) - width, 1), width)
    content[place : place + width] = (rng.choice(EXTREMES) % 256**width).to_bytes(width, "little")
    blobs = (*loadable.blobs[:index], dataclasses.replace(blob, data=bytes(content)), *loadable.blobs[index + 1 :])
    return serialize_loadable(dataclasses.replace(loadable, blobs=blobs))


def entry(data: bytes, rng: random.Random) -> bytes:
    """Set a number of an entry of the lists to an extreme, or drop or repeat an entry."""
    loadable = parse_loadable(data)
    name = rng.choice(LISTS)
    entries = list(getattr(loadable, name))
    if not entries:
        return data
    place = rng.randrange(len(entries))
    how = rng.randrange(4)
    if how == 0:
        del entries[place]
    elif how == 1:
        entries.append(entries[place])
    else:
        numbers = [name for name, value in vars(entries[place]).items() if isinstance(value, int)]
        value = rng.choice(EXTREMES) % rng.choice((2**8, 2**16))
        entries[place] = dataclasses.replace(entries[place], **{rng.choice(numbers): value})
    return serialize_loadable(_with(loadable, name, tuple(entries)))


def _with(loadable: Loadable, name: str, entries: tuple[object, ...]) -> Loadable:
    changed: Loadable = dataclasses.replace(loadable, **{name: entries})  # type: ignore[arg-type]
    return changed


MUTATIONS = (flip, cut, descriptor, descriptor, descriptor, entry)


def attempt(data: bytes) -> str:
    """Read, decode and run `data`; return how it ended."""
    try:
        program: Program = decode(parse_loadable(data), None, LIMITS)
        inputs = {port.name: np.full((2, *port.shape), 3, port.dtype) for port in program.inputs}
        with np.errstate(all="ignore"):
            run_tensors(program, inputs)
    except NvdlaQuantError as error:
        return type(error).__name__
    return "ran"


def fuzz(corpus: list[bytes], count: int, seed: int, keep: Path | None = None) -> Outcome:
    """Run `count` mutations."""
    return run_all(_attempts(corpus, count, random.Random(seed)), seed, keep)


def _attempts(corpus: list[bytes], count: int, rng: random.Random) -> Iterator[Attempt]:
    for _ in range(count):
        data = rng.choice(corpus)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            # What an earlier mutation left unreadable, or a number that the format has no room for: no mutation.
            with contextlib.suppress(NvdlaQuantError, TypeError):
                data = rng.choice(MUTATIONS)(data, rng) if data else data
        yield Attempt(partial(attempt, data), partial(_write, data))


def _write(data: bytes, path: Path) -> None:
    path.with_suffix(".nvdla").write_bytes(data)


def read_corpus(folders: list[Path]) -> list[bytes]:
    """Return every loadable below `folders` that the limits allow, and those of single operations."""
    files = sorted(path for folder in folders for path in folder.rglob("*.nvdla"))
    corpus = [path.read_bytes() for path in files]
    corpus += [serialize_loadable(loadable) for loadable in unit_loadables().values()]
    return [data for data in corpus if attempt(data) == "ran"]


def main() -> int:
    """Fuzz and print the endings."""
    options = parser("Fuzz the reader and the emulator.", Path(__file__).parent / "data").parse_args()
    corpus = read_corpus(options.corpus)
    what = f"{options.count} mutations of {len(corpus)} loadables, seed {options.seed}"
    return report(lambda: fuzz(corpus, options.count, options.seed, options.keep), what)


if __name__ == "__main__":
    sys.exit(main())
