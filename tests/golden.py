"""Read golden cases: what NVIDIA's C-model made of a loadable. See ``data/golden/README.md``."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.memory import DeviceMemory, Values
from nvdla_quant.emulator.operations import Fp16, Operation, Region
from nvdla_quant.emulator.run import run
from nvdla_quant.loadable.reader import read_loadable


@dataclass(frozen=True)
class Golden:
    """A case: the program, its inputs and outputs, and the bytes that operations wrote for the first input."""

    program: Program
    inputs: Values
    outputs: Values
    steps: dict[int, NDArray[np.uint8]]


def read_golden(folder: Path) -> Golden:
    """Read the case in `folder`; steps go by the operation's number in the loadable."""
    with np.load(folder / "vectors.npz") as vectors:
        inputs, outputs = vectors["input"], vectors["output"]
    steps = {}
    if (folder / "steps.npz").exists():
        text = (folder / "steps.txt").read_text()
        indices = {name: int(index) for name, index in re.findall(r"^(op\d+) \w+ index (\d+)", text, re.MULTILINE)}
        with np.load(folder / "steps.npz") as archive:
            steps = {indices[name.removesuffix("_dst")]: archive[name] for name in archive.files}
    return Golden(decode(read_loadable(folder / "loadable.nvdla")), inputs, outputs, steps)


def run_golden(
    golden: Golden, fp16: Fp16 = Fp16.EXACT, *, batch: int | None = None, threads: int = 1
) -> list[tuple[str, Values, Values]]:
    """Run the case and return (what, ours, golden) for the output and every step."""
    ours: dict[int, tuple[Operation, Values]] = {}

    def keep(operation: Operation, values: Values, first: int) -> None:
        if first == 0:
            ours[operation.index] = operation, values

    output = run(golden.program, golden.inputs, fp16=fp16, batch=batch, threads=threads, on_step=keep)
    pairs = [("output", output, golden.outputs)]
    for index, raw in golden.steps.items():
        operation, values = ours[index]
        memory = DeviceMemory({0: Region(len(raw), False, raw)}, 1)
        expected = memory.gather(replace(operation.destination, memory=0, offset=0), operation.dtype)
        pairs.append((f"operation {index}", values[:1], expected))
    return pairs
