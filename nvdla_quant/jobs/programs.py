"""Programs outside of this package: found once, started without a shell, in a folder of their own, under a time limit.

A program is an executable on this machine or in a container. Arguments are passed as a list, so no name is ever read
by a shell.
"""

import contextlib
import hashlib
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvdla_quant.errors import StuckError, ToolError

_LOG = logging.getLogger(__name__)

CONTAINER_FOLDER = "/nvdla-quant"
"""Where a container sees the working folder."""

_GRACE = 10.0
"""Seconds that processes which were killed get to be gone; only a call that cannot be interrupted takes longer."""
_ORPHAN = 10
"""Seconds after its time limit at which a program ends although whoever started it was killed."""


@dataclass(frozen=True)
class Program:
    """An executable that the configuration names.

    Attributes
    ----------
    key : str
        The configuration's key for it, for messages (``backends.nvdla_compiler``).
    path : str
        The executable: a path, or a name that is looked up in ``PATH``; within the container, where there is one.
    container : str or None
        Image as ``docker://nvdla/vp``; None runs the executable here.
    launcher : str
        What runs containers: ``apptainer`` or ``docker``.
    """

    key: str
    path: str
    container: str | None = None
    launcher: str = "apptainer"

    def command(
        self, arguments: Sequence[str], folder: Path, *, seconds: float | None = None, console: str | None = None
    ) -> list[str]:
        """Return the command that runs the program with `arguments` in `folder`.

        Docker's client is not its container, which would survive it. So ``timeout`` ends a program after `seconds`
        there, and one that keeps a terminal, under the name `console`, is ended by `stop`. On this machine ``timeout``
        does so a little later than `run`, for a program whose job was killed: it would hang for ever, and keep what it
        holds.

        Raises
        ------
        ToolError
            The executable, or what runs containers, is not on this machine.
        """
        if self.container is None:
            limit = [] if seconds is None else ["timeout", "-s", "KILL", str(math.ceil(seconds) + _ORPHAN)]
            return [*limit, self._found(self.path, f"{self.key}.path"), *arguments]
        launcher = self._found(self.launcher, f"{self.key}.launcher")
        if self.launcher == "docker":
            image = self.container.removeprefix("docker://")
            user = f"{os.getuid()}:{os.getgid()}"
            mount = f"type=bind,source={_mountable(folder)},target={CONTAINER_FOLDER}"
            options = ["run", "--rm", "--user", user, "--mount", mount, "--workdir", CONTAINER_FOLDER]
            options += [] if console is None else ["-it", "--name", console]
            limit = [] if seconds is None else ["-s", "KILL", str(math.ceil(seconds)), self.path]
            return [launcher, *options, "--entrypoint", "timeout" if limit else self.path, image, *limit, *arguments]
        options = ["exec", "--cleanenv", "--bind", f"{_mountable(folder)}:{CONTAINER_FOLDER}"]
        return [launcher, *options, "--pwd", CONTAINER_FOLDER, self.container, self.path, *arguments]

    def stop(self, console: str) -> None:
        """End the container called `console`, where its launcher's end would leave it."""
        if self.container is not None and self.launcher == "docker":
            try:
                subprocess.run([self.launcher, "rm", "--force", console], capture_output=True, check=False, timeout=60)
            except subprocess.TimeoutExpired:
                _LOG.warning("%s: `%s rm --force %s` does not end; left alone", self.key, self.launcher, console)

    def environment(self) -> dict[str, str]:
        """Return the environment: this one's, with the executable's folder among those of shared libraries."""
        environment = dict(os.environ)
        if self.container is None:
            folder = str(Path(self._found(self.path, f"{self.key}.path")).parent)
            searched = environment.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = folder if not searched else f"{folder}:{searched}"
        return environment

    def digests(self, folder: Path) -> dict[str, str]:
        """Return SHA-256 by file name of the executable, and of libraries that lie beside it.

        In a container, ``sha256sum`` of the executable there; `folder` is where that runs.
        """
        if self.container is None:
            executable = Path(self._found(self.path, f"{self.key}.path"))
            files = [executable, *sorted(executable.parent.glob("libnvdla*.so"))]
            return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        summer = Program(self.key, "sha256sum", self.container, self.launcher)
        done = run(
            summer.command(["--", self.path], folder, seconds=600), folder=folder, seconds=600, environment=os.environ
        )
        # Behind what the launcher says, with a backslash in front where the name that follows is escaped.
        digest = re.search(r"^\\?([0-9a-f]{64}) ", done.text, re.MULTILINE)
        if done.status or digest is None:
            raise ToolError(
                f"{self.key}: cannot read {self.path!r} in the container {self.container}: {done.last_line()}; is the "
                "path right, and can the image be pulled here?"
            )
        return {Path(self.path).name: digest[1]}

    def _found(self, path: str, key: str) -> str:
        found = shutil.which(path)
        if found is None:
            raise ToolError(
                f"{key}: {path!r} is not an executable on this machine; give its path in the configuration, or take "
                "the embedded backend (docs/tools.md says how to get the tools)"
            )
        return str(Path(found).absolute())


def _mountable(folder: Path) -> str:
    """Return the folder as containers take it; their option separates parts by commas and colons."""
    text = str(folder.absolute())
    if "," in text or ":" in text:
        raise ToolError(
            f"{text}: a folder with a comma or colon cannot be bound into a container; rename it, or set TMPDIR"
        )
    return text


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes
    ----------
    status : int
        Exit status as a shell gives it: 128 plus the number of the signal that killed it.
    text : str
        What it printed, both streams together.
    timed_out : bool
        Whether it was killed at the time limit.
    """

    status: int
    text: str
    timed_out: bool = False

    def last_line(self) -> str:
        """Return the last line that is not empty, for messages."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else "it printed nothing"


def run(
    command: Sequence[str],
    *,
    folder: Path,
    seconds: float,
    environment: Mapping[str, str],
    inherited: Sequence[int] = (),
) -> Finished:
    """Run `command` in `folder` and wait; at the time limit it is killed with all processes that it started.

    Parameters
    ----------
    command : Sequence[str]
        The program and its arguments.
    folder : Path
        Working folder.
    seconds : float
        The time limit.
    environment : Mapping[str, str]
        Its environment.
    inherited : Sequence[int], optional
        File descriptors that it keeps open, a lock for example.

    Raises
    ------
    ToolError
        It cannot be started.
    StuckError
        It survives being killed, as a process does that a driver keeps waiting.
    """
    output = folder / "output.log"
    with output.open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=inherited,
            )
        except OSError as error:
            raise ToolError(f"{command[0]}: cannot be started: {error.strerror or error}") from error
        timed_out = False
        stuck: list[int] = []
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            stuck = _kill_group(process)
        except BaseException:
            if stuck := _kill_group(process):
                _LOG.warning("%s: %s; left alone", command[0], _unkillable(stuck))
            raise
    text = output.read_text(encoding="utf-8", errors="replace")
    output.unlink()
    if stuck:
        raise StuckError(f"{command[0]}: not done within {seconds:g} s; {_unkillable(stuck)}")
    status = process.returncode
    return Finished(128 - status if status < 0 else status, text, timed_out)


def _kill_group(process: "subprocess.Popen[bytes]") -> list[int]:
    """End a process that runs, with those that it started: they share its group. Return those that do not end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    end = time.monotonic() + _GRACE
    while True:
        process.poll()
        left = _members(process.pid)
        if not left:
            process.wait()
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


def _members(group: int) -> list[int]:
    """Return the processes of a group that have not ended; those that nobody has waited for yet have."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It ended meanwhile.
            # Behind the name, which may hold anything: state, parent, group.
            state, _, of = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of) == group and state not in ("Z", "X"):
                found.append(int(path.parent.name))
    return found


def _unkillable(processes: Sequence[int]) -> str:
    """Return what to know of processes that survived being killed."""
    return (
        f"killed, but process {', '.join(map(str, processes))} does not end: a driver or file system keeps it in an "
        "uninterruptible wait, and only that can let it go (reload the driver, or restart the machine)"
    )


def bind_into_containers(paths: Iterable[Path]) -> None:
    """Let every container that apptainer starts from this process see folders, and those of files, under their paths.

    What is below the working directory is seen anyway, and what is not there cannot be bound. Where symbolic links lead
    is bound too.

    Raises
    ------
    ToolError
        A folder's name cannot be written as apptainer reads it.
    """
    bound = dict.fromkeys(filter(None, os.environ.get("APPTAINER_BIND", "").split(",")))
    for path in (path for named in paths for path in (named.absolute(), named.resolve())):
        folder = path if path.is_dir() else path.parent
        if folder.is_dir() and not folder.is_relative_to(Path.cwd()):
            bound[_mountable(folder)] = None
    os.environ["APPTAINER_BIND"] = ",".join(bound)
