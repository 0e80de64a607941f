"""Compare the emulator with the regression data of NVIDIA's firmware, which stand in nvdla/sw.

usage: python -m tests.firmware_regression REGRESSION

REGRESSION is the folder ``regression`` of a clone of nvdla/sw: ``flatbufs`` holds loadables in the layout of firmware
before cubes had offsets, most with their inputs inside, ``golden`` what NVIDIA recorded for them. Exit status 1 where
any value of an integer differs; fp16 is compared with the tolerance of the fast mode.
"""

import argparse
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.memory import DeviceMemory
from nvdla_quant.emulator.operations import Region
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, Target
from nvdla_quant.loadable.reader import read_loadable

HEADER = struct.Struct("<4s8I")
"""Magic, padding, format, width, height, channels, line stride, surface stride, size in bytes."""
FAST_TOLERANCE = 0.005


@dataclass(frozen=True)
class Comparison:
    """One case: its units, how many values there are, how many differ, and whether that is within the promise."""

    name: str
    units: tuple[str, ...]
    values: int
    differ: int
    good: bool


def compare(regression: Path) -> Iterator[Comparison | str]:
    """Yield a comparison for each case, or a sentence that says why there is none."""
    for path in sorted((regression / "flatbufs").rglob("*_fbuf")):
        name = path.name.removesuffix("_fbuf")
        if not path.stat().st_size:
            yield f"{name}: not in this clone"
            continue
        (golden,) = (folder for folder in (regression / "golden").iterdir() if folder.name.rpartition("_")[0] == name)
        try:
            yield _compare(name, path, golden / "dla" / "o_000000.dimg")
        except EmulationError as error:
            yield f"{name}: {error}"


def _compare(name: str, path: Path, expected: Path) -> Comparison:
    program = decode(read_loadable(path), target_of_name(name))
    # MNIST was run without an image: its input is zeros.
    inputs = {port.name: np.zeros((1, *port.shape), port.dtype) for port in program.inputs}
    (result,) = run_tensors(program, inputs).values()
    (port,) = program.outputs
    seen = as_dumped(result, replace(port.cube, memory=0, offset=0))
    want = np.frombuffer(expected.read_bytes(), port.dtype, seen.size, HEADER.size).reshape(seen.shape)
    wide = seen.astype(np.float64), want.astype(np.float64)
    tolerance = FAST_TOLERANCE * np.abs(wide[1]).max() if port.dtype == np.float16 else 0.0
    good = bool(np.abs(wide[0] - wide[1]).max() <= tolerance)
    units = tuple(operation.unit for operation in program.operations)
    return Comparison(name, units, want.size, int((seen != want).sum()), good)


def as_dumped(values: NDArray[Any], cube: Any) -> NDArray[Any]:
    """Return what the runtime's dump shows of `values`: it takes atoms to be of 32 bytes, also where they are not."""
    size = cube.end + 32 * cube.width
    memory = DeviceMemory({0: Region(size, True, None)}, 1)
    memory.scatter(cube, values)
    dumped: NDArray[Any] = memory.gather(replace(cube, atom=32 // cube.element_bytes), values.dtype)[0]
    return dumped


def target_of_name(name: str) -> Target:
    """Return the target that a case is for."""
    return NV_SMALL if name.endswith("_small") else NV_LARGE if name.endswith("_large") else NV_FULL


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Compare the emulator with the firmware's regression data.")
    parser.add_argument("regression", type=Path)
    failed = False
    for result in compare(parser.parse_args().regression):
        if isinstance(result, str):
            print(result)
            continue
        failed |= not result.good
        verdict = "good" if result.good else "BAD"
        print(f"{result.name}: {' '.join(result.units)}: {result.differ} of {result.values} values differ, {verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
