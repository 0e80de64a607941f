"""What fuzzers share: each attempt must end in a result or a clean error, in bounded time and memory."""

import argparse
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5.0
MEMORY = 1 << 30
FAILURE = "FAILURE"


@dataclass(frozen=True)
class Attempt:
    """A mutation: what runs it and returns how it ended, and what writes it to a path without a suffix."""

    run: Callable[[], str]
    keep: Callable[[Path], None]


@dataclass(frozen=True)
class Outcome:
    """How often each ending came, failures as such, and the longest time in seconds."""

    endings: Counter[str]
    slowest: float

    @property
    def failed(self) -> bool:
        """Whether anything but a result or a clean error came."""
        return any(ending.startswith(FAILURE) for ending in self.endings)


def run_all(attempts: Iterable[Attempt], seed: int, keep: Path | None = None) -> Outcome:
    """Run attempts one after the other; those that fail are kept in the folder `keep`."""
    endings: Counter[str] = Counter()
    slowest = 0.0
    for number, attempt in enumerate(attempts):
        ending, seconds = _timed(attempt.run)
        endings[ending] += 1
        slowest = max(slowest, seconds)
        if ending.startswith(FAILURE) and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            attempt.keep(keep / f"seed{seed}-{number}")
    return Outcome(endings, slowest)


def _timed(run: Callable[[], str]) -> tuple[str, float]:
    """Return how a run ends, and its seconds."""
    start = time.perf_counter()
    try:
        ending = run()
    except Exception as error:
        ending = f"{FAILURE} {type(error).__name__}"
        traceback.print_exc()
    elapsed = time.perf_counter() - start
    return (ending if elapsed <= SECONDS else f"{FAILURE} took too long"), elapsed


def parser(description: str, corpus: Path) -> argparse.ArgumentParser:
    """Return the options of every fuzzer."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--count", type=int, default=2000)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--corpus", type=Path, nargs="+", default=[corpus])
    made.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for what failed")
    return made


def report(fuzz: Callable[[], Outcome], what: str) -> int:
    """Fuzz with bounded memory, print the endings, and return the exit status: 1 where there was a failure."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    start = time.perf_counter()
    outcome = fuzz()
    for ending, times in outcome.endings.most_common():
        print(f"{times:9d}  {ending}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}, in {time.perf_counter() - start:.0f} s")
    print(f"slowest {outcome.slowest:.2f} s, peak {peak:.0f} MiB")
    return int(outcome.failed)
