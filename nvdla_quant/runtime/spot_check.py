"""Results from the emulator, checked on a few images against a slow device, bit by bit."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nvdla_quant.errors import DumpError
from nvdla_quant.runtime.base import DeviceValues, RunResult, Runtime
from nvdla_quant.runtime.dimg import as_dumped
from nvdla_quant.runtime.emulator import difference

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpotCheck:
    """A device that runs some images, and the emulator that runs all.

    Attributes
    ----------
    device, emulator : Runtime
        Where they run.
    images : int
        How many images the device runs, spread evenly over the batch.
    """

    device: Runtime
    emulator: Runtime
    images: int
    name: str = field(default="spot-check", init=False)

    def run(self, loadable: Path, inputs: DeviceValues) -> RunResult:
        """Run the loadable; see `Runtime.run`. The result is the emulator's, and says how the device compares.

        Where the emulator is exact, every bit must agree, as far as a dump tells bits apart (see `dimg.as_dumped`): a
        NaN is a NaN, and +0 is not -0. Else the largest difference is reported.

        Raises
        ------
        DumpError
            The device computes something else; the message names the first image and place.
        """
        chosen = np.unique(np.linspace(0, len(inputs) - 1, min(self.images, len(inputs))).round().astype(int))
        result = self.device.run(loadable, inputs[chosen])
        fed = inputs[chosen] if result.fed is None else result.fed
        ran = np.ones(len(chosen), np.bool_) if result.ran is None else result.ran
        expected = self.emulator.run(loadable, fed[ran])
        (name,) = result.outputs
        found, computed = as_dumped(result.outputs[name][ran]), as_dumped(expected.outputs[name])
        everything = self.emulator.run(loadable, inputs)
        bits = np.dtype(f"u{found.itemsize}")
        differ = np.argwhere(found.view(bits) != computed.view(bits))
        said = f"{len(found)} of {len(inputs)} images ran on {result.backend}"
        if len(differ) and expected.exactness.startswith("bit-exact"):
            place = tuple(differ[0])
            raise DumpError(
                f"{result.backend} and the emulator differ in {len(differ)} of {found.size} values of {len(found)} "
                f"images; first: image {chosen[ran][place[0]]}, channel {place[1]}, row {place[2]}, column {place[3]}: "
                f"{found[place]} on the device, {computed[place]} in the emulator"
            )
        if len(differ):
            said += f", largest difference {difference(found, computed).max():g}"
        else:
            said += ", every bit the same"
        _LOG.info(said)
        return replace(everything, backend=f"emulator, {said}", exactness=f"{everything.exactness}; {said}")
