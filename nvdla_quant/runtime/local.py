"""`nvdla_runtime` on this machine: a board that runs the workflow itself, or a container."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nvdla_quant.jobs.programs import Program, run
from nvdla_quant.runtime.base import DeviceRun
from nvdla_quant.runtime.lock import alone, patience

DUMP = "output.dimg"
"""The file that `nvdla_runtime` writes, always, in the current directory (RuntimeTest.cpp:49)."""


class LocalDevice:
    """The machine that this runs on.

    Parameters
    ----------
    program : Program
        The runtime.
    time_limit : float
        Seconds for one image.
    """

    name = "local"

    def __init__(self, program: Program, time_limit: float) -> None:
        self._program, self.time_limit = program, time_limit

    def __enter__(self) -> "LocalDevice":
        """Make the working folder."""
        self._folder = Path(tempfile.mkdtemp(prefix="nvdla-runtime-"))
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the working folder."""
        shutil.rmtree(self._folder)

    def put(self, source: Path) -> None:
        """See `Device.put`."""
        shutil.copyfile(source, self._folder / source.name)

    def run(self, arguments: Sequence[str]) -> DeviceRun:
        """See `Device.run`; the machine itself is taken to survive."""
        dump = self._folder / DUMP
        dump.unlink(missing_ok=True)
        with alone("nvdla", patience(self.time_limit)) as lock:
            finished = run(
                self._program.command(arguments, self._folder, seconds=self.time_limit),
                folder=self._folder,
                seconds=self.time_limit + (30 if self._program.container else 0),
                environment=self._program.environment(),
                inherited=(lock,),
            )
        content = dump.read_bytes() if dump.is_file() else None
        return DeviceRun(None if finished.timed_out else finished.status, finished.text, content)

    def recover(self) -> None:
        """Do nothing: what hung was killed, and the files are there."""
