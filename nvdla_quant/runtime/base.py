"""What every place where loadables run has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DumpError

DeviceValues = NDArray[np.int8] | NDArray[np.int16] | NDArray[np.float16]
"""A batch of tensors ``(n, c, h, w)`` in the device's domain."""


@dataclass(frozen=True, eq=False)
class Check:
    """Images that a fast run also ran bit for bit, and how far it is off on each.

    Attributes
    ----------
    positions : NDArray[np.int64]
        Which images of the batch, (k,).
    output : NDArray[np.float64]
        Largest absolute difference in the output of each image, (k,).
    before_softmax : NDArray[np.float64] or None
        The same in what the final Softmax read, where there is one, (k,).
    """

    positions: NDArray[np.int64]
    output: NDArray[np.float64]
    before_softmax: NDArray[np.float64] | None


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
    check : Check or None
        How far the numbers are off, where they are not exact and some images were also run exactly.
    ran : NDArray[bool] or None
        Images that gave an output, (n,): those that a device died on have zeros. None: all.
    fed : DeviceValues or None
        What the device got for the images that ran, where that is not what was asked for (a JPEG is not exact).
    """

    outputs: Mapping[str, DeviceValues]
    before_softmax: DeviceValues | None
    backend: str
    exactness: str
    check: Check | None = None
    ran: NDArray[np.bool_] | None = None
    fed: DeviceValues | None = None


def as_arrays(result: RunResult, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a raw dump file.

    ``output`` (n, c, h, w), the only output, or ``outputs/NAME`` of each of several, by the loadable's names;
    ``logits``, what the final Softmax read, where there is one; all in the device's domain. ``exactness`` and
    ``backend``: text, (1,). Where images were checked: ``checked``, which ones, ``checked_output`` and
    ``checked_logits``, see `Check`, (k,). ``ran``, (n,), and ``fed``, as `RunResult`.

    Parameters
    ----------
    result : RunResult
        Of some images.
    indices : NDArray[np.int64]
        Place of each image in its data set, (n,).
    """
    outputs = result.outputs
    one = len(outputs) == 1
    arrays: dict[str, NDArray[Any]] = {_ONLY: next(iter(outputs.values()))} if one else named_outputs(outputs)
    if result.before_softmax is not None:
        arrays["logits"] = result.before_softmax
    if result.check is not None:
        arrays |= {"checked": indices[result.check.positions], "checked_output": result.check.output}
        if result.check.before_softmax is not None:
            arrays["checked_logits"] = result.check.before_softmax
    arrays |= {name: values for name, values in (("ran", result.ran), ("fed", result.fed)) if values is not None}
    return arrays | {"exactness": np.array([result.exactness]), "backend": np.array([result.backend])}


_ONLY, _SEVERAL = "output", "outputs/"


def named_outputs(outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return outputs under the names that they have in a file of arrays, ``outputs/NAME``."""
    return {f"{_SEVERAL}{name}": values for name, values in outputs.items()}


def outputs_in(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the outputs in a file of arrays by their names, in their order; one without a name is called ``output``.

    Raises
    ------
    DumpError
        There is none.
    """
    found = {name.removeprefix(_SEVERAL): values for name, values in arrays.items() if name.startswith(_SEVERAL)}
    if not found and _ONLY not in arrays:
        raise DumpError(
            f"no output among the arrays {', '.join(arrays) or 'of an empty file'}; remove it and run again"
        )
    return found or {_ONLY: arrays[_ONLY]}


@dataclass(frozen=True)
class DeviceRun:
    """One run of a program on a device.

    Attributes
    ----------
    status : int or None
        Exit status; None where it did not end within the time limit and was killed.
    text : str
        What it printed.
    dump : bytes or None
        The ``output.dimg`` that this run wrote, if it wrote one.
    """

    status: int | None
    text: str
    dump: bytes | None


class Device(Protocol):
    """A machine with an NVDLA and `nvdla_runtime`, as a context: entering connects or boots, leaving cleans up."""

    @property
    def name(self) -> str:
        """What it is, as a report names it."""
        ...

    @property
    def time_limit(self) -> float:
        """Seconds for one image."""
        ...

    def __enter__(self) -> "Device": ...

    def __exit__(self, *exception: object) -> None: ...

    def put(self, source: Path) -> None:
        """Copy a file into the device's working folder, under its own name, which a shell takes for plain text.

        Raises
        ------
        DeviceLostError
            The device does not answer.
        """
        ...

    def run(self, arguments: Sequence[str]) -> DeviceRun:
        """Run `nvdla_runtime` in the working folder, where no dump of an earlier run is left.

        Raises
        ------
        DeviceLostError
            The device does not answer any more.
        """
        ...

    def recover(self) -> None:
        """Bring a device that died, or hangs, back to where files can be put; they are to be put again.

        Raises
        ------
        ToolError
            It does not come back.
        """
        ...


class Runtime(Protocol):
    """A place where loadables run."""

    @property
    def name(self) -> str:
        """What it is, as a report names it."""
        ...

    def run(self, loadable: Path, inputs: DeviceValues) -> RunResult:
        """Run the loadable on ``(n, c, h, w)`` inputs in the device's domain, C as in its tensor descriptor.

        Raises
        ------
        NvdlaQuantError
            The loadable cannot be read or run here, or the inputs do not fit it.
        """
        ...
