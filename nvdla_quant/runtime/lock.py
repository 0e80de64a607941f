"""One run at a time on a device, whatever starts it: a lock file on the machine that the device belongs to.

The kernel holds the lock for as long as a process has the file open, and no longer: none is left by a job that died. A
program that inherits the file holds it too, also when the job that started it was killed, or when a driver does not let
the program go. The file's time of change is that at which the lock was taken. A board over SSH is locked by the same
file, on the board (see `nvdla_quant.runtime.ssh`).
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from nvdla_quant.errors import ToolError

_LOG = logging.getLogger(__name__)

FOLDER = Path("/tmp")
"""Where lock files are: not `tempfile.gettempdir()`, which each user, shell and cluster job may have set otherwise."""
_POLL = 0.2
_REPORT = 30.0
"""Seconds between two lines in the log."""


def lock_file(device: str) -> Path:
    """Return the lock file of a device of this machine, or of a board: ``nvdla`` or ``virtual-platform``."""
    return FOLDER / f"nvdla-quant-{device}.lock"


def patience(time_limit: float) -> float:
    """Return the seconds after which another run, that may have another time limit, is taken to hang for ever."""
    return 4 * time_limit + 60


class Waiting:
    """Somebody who waits for a device: says so now and then, and gives up where the run that holds it hangs.

    Parameters
    ----------
    where : str
        The device, and the file that locks it.
    limit : float or None
        Seconds that one run may hold it while others wait; None: any time.
    """

    def __init__(self, where: str, limit: float | None) -> None:
        self._where, self._limit = where, limit
        self._start = time.monotonic()
        self._next = 0.0

    def again(self, held: float) -> None:
        """Take note that the device is still in use, since `held` seconds by the same run.

        Raises
        ------
        ToolError
            That run does not end.
        """
        waited = time.monotonic() - self._start
        if self._limit is not None and min(waited, held) > self._limit:
            raise ToolError(
                f"{self._where}: in use for {held:.0f} s by one run that is not this job's, so it hangs; `fuser -v` "
                "with that file says which process it is: end it, or restart the machine where it cannot be ended"
            )
        if waited >= self._next:
            self._next = waited + _REPORT
            _LOG.info("%s: in use by another run; waiting for its end, %.0f s so far", self._where, waited)


@contextlib.contextmanager
def alone(device: str, limit: float | None) -> Iterator[int]:
    """Hold a device of this machine; wait for it.

    Parameters
    ----------
    device : str
        See `lock_file`.
    limit : float or None
        See `Waiting`.

    Yields
    ------
    int
        File descriptor for a program to inherit, which then holds the device for as long as it runs.

    Raises
    ------
    ToolError
        Another run does not let go, or the file cannot be opened.
    """
    path = lock_file(device)
    try:
        descriptor = _opened(path)
    except OSError as error:
        raise ToolError(
            f"{path}: cannot lock the device: {error.strerror}; expected a file that all can write"
        ) from error
    try:
        waiting = Waiting(f"{device} of this machine ({path})", limit)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting.again(time.time() - os.fstat(descriptor).st_mtime)
                time.sleep(_POLL)
        os.utime(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open a lock file, made where it is missing, for all users of the machine.

    Opened to be made, another's file in a folder for all is refused by the kernel (``fs.protected_regular``).
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL)
            os.fchmod(descriptor, 0o666)
            return descriptor
