"""What there is to say of a compilation: the facts in ``compile.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvdla_quant.errors import ClaimError


@dataclass(frozen=True)
class TensorReport:
    """A bindable tensor, or the one before a softmax.

    Attributes
    ----------
    name : str
        Name of the layer that writes it, or of the network input.
    shape : tuple[int, int, int]
        Channels, height, width, without what pads an image to four channels.
    scale : float
        Real value of one integer step; in fp16 that of 1: a power of two, see `halves.half_scales`.
    operation : int or None
        Number of the last operation that writes it; None for a network input.
    """

    name: str
    shape: tuple[int, int, int]
    scale: float
    operation: int | None


@dataclass(frozen=True)
class OperationReport:
    """One operation: its unit (``CPU`` for a softmax) and the layers that it computes."""

    unit: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ConvolutionReport:
    """How a convolution of the hardware uses the buffer.

    Attributes
    ----------
    layer : str
        First layer that it computes; a layer that was split has one entry for each part.
    kernels, channels : int
        Outputs and inputs of this part.
    data_banks, weight_banks : int
        Banks.
    mode : str
        ``full``, ``ping-pong`` or ``minimum``: how many kernels are in the buffer at a time, see `cbuf.Division`.
    entries_per_slice : int
        CBUF entries of one row.
    row_runs, column_runs, runs : int
        Runs along the height and the width, and all of them.
    dram_bytes_read : int
        Input and weights, as often as they are read.
    post_extension : int
        Log2 of the rows joined in an image.
    """

    layer: str
    kernels: int
    channels: int
    data_banks: int
    weight_banks: int
    mode: str
    entries_per_slice: int
    row_runs: int
    column_runs: int
    runs: int
    dram_bytes_read: int
    post_extension: int


@dataclass(frozen=True)
class WeightReport:
    """What became of the weights of a layer that came quantized.

    Attributes
    ----------
    layer : str
        The layer.
    honoured, steps, relative
        As `quantize.WeightChange`, over all parts of the layer.
    """

    layer: str
    honoured: bool
    steps: float
    relative: float


@dataclass(frozen=True)
class Report:
    """What was compiled, and how; see `Compilation.report`.

    Attributes
    ----------
    compiler, version : str
        This compiler.
    target, precision : str
        What the loadable is for.
    mode : str or None
        Quantization mode; None in fp16.
    operations : tuple[OperationReport, ...]
        In order of execution, all tasks.
    units : Mapping[str, int]
        Operations of each unit.
    convolutions : tuple[ConvolutionReport, ...]
        One for each convolution of the hardware.
    multiply_accumulates : int
        Of one image, padding and what splitting adds included.
    weight_bytes, operand_bytes : int
        Packed weights; biases and multipliers.
    dram_bytes : Mapping[str, int]
        ``data`` (weights and operands), ``activations``, ``bindable`` (inputs and outputs) and their ``peak``, the sum.
    live_bytes : int
        Largest sum of activations in use at one moment: the least that ``activations`` could be.
    serial : bool
        Whether units do not overlap, since overlapping would take much more memory.
    inputs, outputs : tuple[TensorReport, ...]
        Bindable tensors.
    before_softmax : tuple[TensorReport or None, ...]
        For each output, the tensor that its softmax reads.
    warnings : tuple[str, ...]
        What the loadable computes otherwise than the network, what saturates or is coarse by the table, and entries
        that have no effect.
    weights : tuple[WeightReport, ...]
        Layers whose weights came quantized; ``compile.json`` has the key where there are any.
    specification : Mapping[str, Any]
        Of a target of one's own, what `Target` says of it; ``compile.json`` has the key for these alone.
    """

    compiler: str
    version: str
    target: str
    precision: str
    mode: str | None
    operations: tuple[OperationReport, ...]
    units: Mapping[str, int]
    convolutions: tuple[ConvolutionReport, ...]
    multiply_accumulates: int
    weight_bytes: int
    operand_bytes: int
    dram_bytes: Mapping[str, int]
    live_bytes: int
    serial: bool
    inputs: tuple[TensorReport, ...]
    outputs: tuple[TensorReport, ...]
    before_softmax: tuple[TensorReport | None, ...]
    warnings: tuple[str, ...]
    weights: tuple[WeightReport, ...] = ()
    specification: Mapping[str, Any] = field(default_factory=dict)


def read_layers(path: Path) -> dict[int, tuple[str, ...]]:
    """Return the layers that each operation computes, by its number, as a ``compile.json`` names them.

    Raises
    ------
    ClaimError
        The file cannot be read, or names no operations: another compiler's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        operations = content["operations"]
        return {number: tuple(map(str, operation["layers"])) for number, operation in enumerate(operations)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClaimError(
            f"{path}: names no operations ({type(error).__name__}: {error}); expected a compile.json of the built-in "
            "compiler, which `compile --report` writes"
        ) from error
