"""What every place where loadables run has in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DumpError

DeviceValues = NDArray[np.int8] | NDArray[np.int16] | NDArray[np.float16]
"""A batch of tensors ``(n, c, h, w)`` in the device's domain."""


@dataclass(frozen=True)
class RunResult:
    """What a loadable made of a batch of images.

    Attributes
    ----------
    outputs : Mapping[str, DeviceValues]
        Output tensors by name, ``(n, c, h, w)``, in the device's domain: int8 values are quantized.
    before_softmax : DeviceValues or None
        What the Softmax read that ends the loadable, where one does and the backend can see it.
    backend : str
        Where it ran.
    exactness : str
        How close to the hardware the numbers are, as a report states it.
    """

    outputs: Mapping[str, DeviceValues]
    before_softmax: DeviceValues | None
    backend: str
    exactness: str


def as_arrays(result: RunResult) -> dict[str, NDArray[Any]]:
    """Return the arrays of a raw dump file.

    ``output`` (n, c, h, w), the one output tensor; ``logits``, what the final Softmax read, where there is one; both in
    the device's domain. ``exactness`` and ``backend``: text, (1,).

    Raises
    ------
    DumpError
        The loadable has several outputs.
    """
    if len(result.outputs) != 1:
        raise DumpError(f"the loadable has the outputs {', '.join(result.outputs)}, expected exactly one to score")
    (output,) = result.outputs.values()
    arrays: dict[str, NDArray[Any]] = {"output": output}
    if result.before_softmax is not None:
        arrays["logits"] = result.before_softmax
    return arrays | {"exactness": np.array([result.exactness]), "backend": np.array([result.backend])}


class Runtime(Protocol):
    """A place where loadables run."""

    name: str

    def run(self, loadable: Path, inputs: DeviceValues) -> RunResult:
        """Run the loadable on ``(n, c, h, w)`` inputs in the device's domain, C as in its tensor descriptor.

        Raises
        ------
        NvdlaQuantError
            The loadable cannot be read or run here, or the inputs do not fit it.
        """
        ...
