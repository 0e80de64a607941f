"""A measure of the user's own: a command that gets the outputs of all test images and prints a number for each."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import ToolError
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs.files import read_npz, write_npz
from nvdla_quant.runtime.base import outputs_in
from nvdla_quant.steps.measures.fidelity import shards_of

OUTPUTS, IMAGES = "outputs.npz", "images.npz"
"""What the command is given, as its last two arguments."""


def number_reference(reference: Sequence[str], images: Sequence[str], command: Sequence[str], numbers: str) -> None:
    """Ask a command about fp32's outputs; see `number_images`."""
    parts = [outputs_in(read_npz(Path(path))) for path in reference]
    number_images({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, images, command, numbers)


def number_variant(
    dumps: Sequence[str],
    reference: Sequence[str],
    files: Sequence[str],
    table: str | None,
    images: Sequence[str],
    command: Sequence[str],
    numbers: str,
) -> None:
    """Ask a command about what a device gave; parameters as of `fidelity.shards_of`, then of `number_images`.

    Images that gave no output have no number.
    """
    outputs: dict[str, list[NDArray[np.float32]]] = {}
    ran = []
    for shard in shards_of(dumps, reference, files, table):
        for name, made, step, exact in zip(shard.names, shard.made, shard.steps, shard.exact, strict=True):
            real = made.astype(np.float32) * np.float32(1 if step is None else step)
            outputs.setdefault(name, []).append(real.reshape(exact.shape))
        ran.append(shard.ran)
    joined = {name: np.concatenate(parts) for name, parts in outputs.items()}
    number_images(joined, images, command, numbers, np.concatenate(ran))


def number_images(
    outputs: dict[str, NDArray[np.float32]],
    images: Sequence[str],
    command: Sequence[str],
    numbers: str,
    ran: NDArray[np.bool_] | None = None,
) -> None:
    """Run a command on outputs and write the number that it prints for each image.

    Its last two arguments are ``outputs.npz``, the outputs in real units, ``(n, ...)`` by name, and ``images.npz``:
    ``pixels`` uint8 ``(n, c, h, w)`` as the network sees them before mean and scale, ``names``, ``indices`` (places in
    the data set), and ``labels`` where there are any. It prints one number a line, ``nan`` for an image without one.

    Parameters
    ----------
    outputs : dict[str, NDArray[float32]]
        In real units.
    images : Sequence[str]
        Shards of the test images.
    command : Sequence[str]
        The program and its first arguments; it runs in the working directory.
    numbers : str
        What is written: ``numbers``, float64 (n,).
    ran : NDArray[bool], optional
        Images that gave an output; the others get no number.

    Raises
    ------
    ToolError
        The command is not there, fails, or prints something else than a number for each image.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / OUTPUTS, Path(folder) / IMAGES]
        write_npz(places[0], outputs, compress=False)
        write_npz(places[1], _shown(images), compress=False)
        printed = _printed([*command, *map(str, places)])
    found = numbers_in(printed, len(next(iter(outputs.values()))), " ".join(command))
    if ran is not None:
        found[~ran] = nan
    write_npz(numbers, {"numbers": found})


def _shown(images: Sequence[str]) -> Mapping[str, NDArray[Any]]:
    """Return what a command is told of the test images."""
    parts = [read_images(Path(path)) for path in images]
    shown: dict[str, NDArray[Any]] = {
        "pixels": np.concatenate([part.pixels for part in parts]),
        "names": np.array([name for part in parts for name in part.names], np.str_),
        "indices": np.concatenate([part.indices for part in parts]),
    }
    labels = [part.labels for part in parts if part.labels is not None]
    return shown | ({"labels": np.concatenate(labels)} if labels else {})


def _printed(command: Sequence[str]) -> str:
    """Return what a command prints; what it says on standard error goes to the log."""
    program = shutil.which(command[0])
    if program is None:
        raise ToolError(f"cases[].command: {command[0]!r} is not an executable on this machine; give its path")
    try:
        done = subprocess.run([program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise ToolError(f"cases[].command: {command[0]}: cannot be started: {error.strerror or error}") from error
    if done.returncode:
        said = " ".join(command[:-2])
        raise ToolError(f"cases[].command: {said}: ended with status {done.returncode}; the log has what it said")
    return done.stdout.decode("utf-8", errors="replace")


def numbers_in(printed: str, images: int, command: str) -> NDArray[np.float64]:
    """Return the numbers that a command printed, one a line.

    Raises
    ------
    ToolError
        A line is no number, or infinite, or there is not one for each image.
    """
    lines = printed.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    found = []
    for place, line in enumerate(lines, 1):
        try:
            found.append(float(line))
        except ValueError:
            raise ToolError(
                f"cases[].command: {command}: line {place} of its output is {line[:60]!r}, expected a number, or nan; "
                "print everything else to standard error"
            ) from None
        if abs(found[-1]) == inf:
            raise ToolError(f"cases[].command: {command}: line {place} of its output is infinite; print nan for none")
    if len(found) != images:
        raise ToolError(
            f"cases[].command: {command}: it printed {len(found)} numbers, expected one a line for each of the "
            f"{images} test images, in their order"
        )
    return np.array(found, np.float64)
