"""One log file for each job: messages, warnings, progress and what libraries print."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nvdla_quant.errors import NvdlaQuantError

LOGGER = logging.getLogger("nvdla_quant")

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all, images for example."""


@contextmanager
def capture(path: str | Path) -> Iterator[None]:
    """Send everything that a job says to the log at `path`; end the job with one line where the user can act.

    Standard output and error are redirected at the level of file descriptors, so that C libraries are caught too. A
    job that is told to end (SIGTERM, as by a cluster) ends by an exception: programs and devices that it started, which
    have sessions of their own, end with it, and what it holds for the moment is removed.

    Raises
    ------
    SystemExit
        With status 2, after an `NvdlaQuantError`, whose message is the log's last line; with 143 after SIGTERM.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1, encoding="utf-8") as log:
        kept = [(stream, os.dup(stream.fileno())) for stream in (sys.stdout, sys.stderr)]
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.captureWarnings(True)
        root = logging.getLogger()
        root.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
        ended = signal.signal(signal.SIGTERM, _end)
        try:
            for stream, _ in kept:
                stream.flush()
                os.dup2(log.fileno(), stream.fileno())
            yield
        except NvdlaQuantError as error:
            print(f"error: {error}", file=log)
            raise SystemExit(2) from error
        finally:
            signal.signal(signal.SIGTERM, ended)
            root.removeHandler(handler)
            for stream, descriptor in kept:
                stream.flush()
                os.dup2(descriptor, stream.fileno())
                os.close(descriptor)


def _end(number: int, _: object) -> None:
    """End the process as a shell reports that it was ended."""
    LOGGER.error("told to end by %s", signal.Signals(number).name)
    raise SystemExit(128 + number)


def log_progress(what: str, every: float = 5.0, unit: str = "images") -> Progress:
    """Return a `Progress` that logs how far, how fast and how long, at most once in `every` seconds and at the end."""
    start = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < every:
            return
        last = now
        rate = done / max(now - start, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        LOGGER.info("%s: %d of %d %s, %.0f %s/s, %.0f s left", what, done, total, unit, rate, unit, left)

    return report
