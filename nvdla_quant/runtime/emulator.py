"""Run loadables on the emulator."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import Operation
from nvdla_quant.emulator.program import decode
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware import Precision, Target
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.base import DeviceValues, RunResult

_LOG = logging.getLogger(__name__)
EXACTNESS = {
    Precision.INT8: "bit-exact: the same int8 values as NVIDIA's C-model",
    Precision.INT16: "bit-exact: the same integers as NVIDIA's C-model",
    Precision.FP16: "fast: fp16 convolutions summed in float32, which rounds differently from the hardware",
}


@dataclass(frozen=True)
class EmulatorRuntime:
    """The emulator as a backend.

    Attributes
    ----------
    target : Target or None
        Hardware; None: nv_small where feature atoms are 8 bytes, else nv_full.
    threads : int
        Threads that share the images.
    batch : int or None
        Images that run together; None: as many as keep the memory small.
    progress : callable or None
        Called with the number of images that are done, and of all.
    """

    target: Target | None = None
    threads: int = 1
    batch: int | None = None
    progress: Callable[[int, int], None] | None = None
    name: str = "emulator"

    def run(self, loadable: Path, inputs: DeviceValues) -> RunResult:
        """Run the loadable; see `Runtime.run`."""
        program = decode(read_loadable(loadable), self.target)
        if len(program.inputs) != 1:
            raise EmulationError(f"{loadable}: {len(program.inputs)} inputs, expected one")
        for warning in program.warnings:
            _LOG.warning("%s: %s", loadable, warning)
        before = program.before_softmax
        kept: list[tuple[int, Values]] = []

        def keep(_: Operation, values: Values, first: int) -> None:
            kept.append((first, values))

        outputs = run_tensors(
            program,
            {program.inputs[0].name: inputs},
            batch=self.batch,
            threads=self.threads,
            on_step=None if before is None else keep,
            steps=None if before is None else {before.index},
            progress=self.progress,
        )
        kept.sort(key=lambda part: part[0])
        scores = np.concatenate([values for _, values in kept]) if kept else None
        return RunResult(outputs, scores, self.name, EXACTNESS[program.precision])
