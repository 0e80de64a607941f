"""Jobs of a run within the tests' process: each a process of its own, forked off one that has imported what jobs need.

A job that starts from nothing spends most of its time on imports. What it runs, where, with which environment, and the
package, which it imports from the checkout itself, are as Snakemake says; runs in a process of their own
(`tests.sweeps.run_apart`) start every job anew, as a user's do.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from snakemake.script import PythonScript

FOLDER = Path(__file__).resolve().parent


@cache
def server(threads: int) -> Path:
    """Start what forks jobs of so many threads, which libraries read when they are imported; return its socket."""
    socket = Path(tempfile.mkdtemp(prefix="forks-")) / "socket"
    names = ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in names}}
    environment.pop("PYTHONPATH", None)
    # It ends when its input does: with this process, however that ends.
    process = subprocess.Popen(
        [sys.executable, "-P", str(FOLDER / "server.py"), str(socket)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read() == b"listening", "no server of forks"
    _STARTED.append((process, socket))
    return socket


_STARTED: list[tuple[subprocess.Popen[bytes], Path]] = []


def stop() -> None:
    """End what `server` has started."""
    for process, socket in _STARTED:
        process.communicate()
        socket.unlink()
        socket.parent.rmdir()
    _STARTED.clear()
    server.cache_clear()


def _execute(script: PythonScript, fname: str, edit: bool = False) -> None:
    program = [sys.executable, "-I", "-S", str(FOLDER / "client.py"), str(server(script.threads))]
    script._execute_cmd("{program} {fname:q}", program=shlex.join(program), fname=fname, is_python_script=True)


@contextlib.contextmanager
def forked_jobs() -> Iterator[None]:
    """Fork the jobs that Snakemake starts in this process; not those of an environment of their own."""
    anew = PythonScript.execute_script

    def execute(script: PythonScript, fname: str, edit: bool = False) -> Any:
        own = script.conda_env or script.container_img or script.env_modules
        return (anew if own else _execute)(script, fname, edit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PythonScript, "execute_script", execute)
        yield
