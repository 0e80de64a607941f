"""Run loadables on the emulator."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import Fp16, Operation
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.base import Check, DeviceValues, RunResult

_LOG = logging.getLogger(__name__)
INTEGER_EXACTNESS = "bit-exact: the same integers as NVIDIA's C-model"
FP16_EXACTNESS = {
    Fp16.EXACT: "bit-exact: the same fp16 values as NVIDIA's C-model",
    Fp16.FAST: "fast: fp16 convolutions summed in float32, which rounds differently from the hardware",
}
SAMPLE_IMAGES = 32
"""Images of a test set that a fast run also runs bit for bit."""


def sample_of(count: int, first: int, end: int) -> tuple[int, ...]:
    """Return which images of a part, numbered in the part, are of the sample: the same ones for any number of parts.

    Parameters
    ----------
    count : int
        Images of the test set.
    first, end : int
        First image of the part in the test set, and the first behind it.
    """
    positions = np.unique(np.linspace(0, count - 1, SAMPLE_IMAGES).round().astype(np.int64))
    return tuple((positions[(positions >= first) & (positions < end)] - first).tolist())


@dataclass(frozen=True)
class EmulatorRuntime:
    """The emulator as a backend.

    Attributes
    ----------
    target : Target or None
        Hardware; None: what the loadable fits, see `default_target`.
    threads : int
        Threads that share the images.
    batch : int or None
        Images that run together; None: as many as keep the memory small.
    progress : callable or None
        Called with the number of images that are done, and of all.
    fp16 : Fp16
        How operations in fp16 are computed.
    sample : Sequence[int] or None
        Which images are also run bit for bit where the others are not (see `RunResult.check`); None: no check.
    """

    target: Target | None = None
    threads: int = 1
    batch: int | None = None
    progress: Callable[[int, int], None] | None = None
    fp16: Fp16 = Fp16.EXACT
    sample: Sequence[int] | None = None
    name: str = "emulator"

    def run(self, loadable: Path, inputs: DeviceValues) -> RunResult:
        """Run the loadable; see `Runtime.run`."""
        program = decode(read_loadable(loadable), self.target)
        if len(program.inputs) != 1:
            raise EmulationError(f"{loadable}: {len(program.inputs)} inputs, expected one")
        for warning in program.warnings:
            _LOG.warning("%s: %s", loadable, warning)
        outputs, before = self._run(program, inputs, self.fp16, self.progress)
        halves = program.precision is Precision.FP16
        exactness = FP16_EXACTNESS[self.fp16] if halves else INTEGER_EXACTNESS
        check = None
        if halves and self.fp16 is Fp16.FAST and self.sample is not None:
            check = self._check(program, inputs, outputs, before, np.array(self.sample, np.int64))
        return RunResult(outputs, before, self.name, exactness, check)

    def _check(
        self,
        program: Program,
        inputs: DeviceValues,
        outputs: Mapping[str, Values],
        before: Values | None,
        positions: NDArray[np.int64],
    ) -> Check:
        """Run the images at `positions` bit for bit, and say how far off the fast values are; of no images nothing."""
        if not positions.size:
            return Check(positions, np.empty(0), None if before is None else np.empty(0))
        exact_outputs, exact_before = self._run(program, inputs[positions], Fp16.EXACT, None)
        off = np.max([difference(outputs[name][positions], exact_outputs[name]) for name in outputs], axis=0)
        logits_off = None
        if before is not None and exact_before is not None:
            logits_off = difference(before[positions], exact_before)
        return Check(positions, off, logits_off)

    def _run(
        self, program: Program, inputs: DeviceValues, fp16: Fp16, progress: Callable[[int, int], None] | None
    ) -> tuple[dict[str, Values], Values | None]:
        """Return the outputs by name, and what the final Softmax read."""
        before = [operation.index for operation in program.before_softmax]
        kept: dict[int, list[tuple[int, Values]]] = {index: [] for index in before}

        def keep(operation: Operation, values: Values, first: int) -> None:
            kept[operation.index].append((first, values))

        outputs = run_tensors(
            program,
            {program.inputs[0].name: inputs},
            fp16=fp16,
            batch=self.batch,
            threads=self.threads,
            on_step=keep if before else None,
            steps=set(before),
            progress=progress,
        )
        return outputs, np.concatenate([_in_order(kept[index]) for index in before], axis=1) if before else None


def _in_order(parts: list[tuple[int, Values]]) -> Values:
    """Return the values of all images, given with the number of the first."""
    return np.concatenate([values for _, values in sorted(parts, key=lambda part: part[0])])


def difference(values: DeviceValues, exact: DeviceValues) -> NDArray[np.float64]:
    """Return the largest absolute difference of each image, (n,); two NaNs do not differ."""
    first, second = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (values, exact))
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    off = np.abs(np.subtract(first, second, where=~same, out=np.zeros_like(first)))
    largest: NDArray[np.float64] = off.max(axis=1)
    return largest
