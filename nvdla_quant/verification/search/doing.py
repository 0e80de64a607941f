"""What an operation does, and what a layer asks for: convolutions, poolings, sums, ... to be counted and compared."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import (
    ConvOperation,
    CpuOperation,
    Operand,
    Operation,
    PdpOperation,
    SdpOperation,
    SdpUnit,
)
from nvdla_quant.loadable.structs import EmuOperation, SdpAlu
from nvdla_quant.network.graph import (
    TABULATED,
    BatchNorm,
    Convolution,
    Deconvolution,
    InnerProduct,
    Layer,
    Power,
    Scale,
)

HARD = 4.0
"""Cost of a convolution, pooling, sum, ... too many or too few."""

KINDS = {
    "Convolution": "conv",
    "Deconvolution": "conv",
    "InnerProduct": "conv",
    "SpaceToDepth": "conv",
    "DepthToSpace": "conv",
    "Pooling": "pool",
    "LRN": "norm",
    "Softmax": "softmax",
    "Eltwise": "eltwise",
    "ReLU": "relu",
    "PReLU": "relu",
    "Clip": "relu",
    **{kind.kind: "lookup" for kind in TABULATED},
    "BatchNorm": "affine",
    "Scale": "affine",
    "Power": "affine",
}

HARD_KINDS = ("conv", "pool", "norm", "softmax", "eltwise")

ALL_KINDS = (*HARD_KINDS, "relu", "lookup", "affine", "offset")


def added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of some counts."""
    return {kind: sum(count[kind] for count in counts) for kind in counts[0]}


def work_of(operation: Operation) -> dict[str, int]:
    """Return how many convolutions, poolings, ... an operation has."""
    counts = dict.fromkeys(ALL_KINDS, 0)
    counts["norm"] = int(operation.unit == "CDP")
    counts["pool"] = int(isinstance(operation, PdpOperation))
    counts["softmax"] = int(isinstance(operation, CpuOperation) and operation.kind is EmuOperation.SOFTMAX)
    if isinstance(operation, SdpOperation):
        counts["conv"] = int(isinstance(operation.source, ConvOperation))
        counts["relu"] = sum(unit.relu or unit.prelu or _bounds(unit) for unit in operation.units)
        counts["lookup"] = sum(unit.lookup for unit in operation.units)
        counts["affine"] = sum(
            part is not None and not _is_tensor(part)
            for unit in operation.units
            if not _bounds(unit)
            for part in (unit.alu_operand, unit.mul_operand)
        )
        counts["offset"] = sum(
            unit.alu_operand is not None and not _is_tensor(unit.alu_operand) and not _bounds(unit)
            for unit in operation.units
        )
        operands = [(unit.alu_operand, unit.mul_operand) for unit in operation.units]
        counts["eltwise"] = sum(any(part is not None and _is_tensor(part) for part in parts) for parts in operands)
    return counts


def _is_tensor(operand: Operand) -> bool:
    """Return whether an operand is what other operations wrote."""
    return operand.cube is not None or operand.array is not None


def _bounds(unit: SdpUnit) -> bool:
    """Return whether a unit bounds values by a constant."""
    operand = unit.alu_operand
    return unit.alu in (SdpAlu.MAX, SdpAlu.MIN) and operand is not None and not _is_tensor(operand)


def adds_constant(layer: Layer) -> bool:
    """Return whether a layer adds a constant: a bias, an offset."""
    match layer.operation:
        case BatchNorm():
            return True
        case Scale():
            return layer.operation.beta is not None
        case Power():
            return layer.operation.shift != 0
        case Convolution() | Deconvolution() | InnerProduct():
            return layer.operation.bias is not None
    return False


def difference(does: Mapping[str, int], asked: Mapping[str, int], opened: bool) -> float:
    """Return the cost of what an operation does too much or too little for what layers ask for."""
    cost = 0.0
    for kind in HARD_KINDS:
        layers, units = asked[kind], does[kind]
        # Parts that were left open may add up to one layer, and partial sums are added up on the way.
        more = min(units - layers, 0) if opened and (layers or kind == "eltwise") else units - layers
        cost += HARD * abs(more)
    return cost


def window_of(operation: Operation) -> tuple[int, int] | None:
    """Return the height and width of a convolution's kernels; None for anything else."""
    if isinstance(operation, SdpOperation) and isinstance(operation.source, ConvOperation):
        return operation.source.kernel_height, operation.source.kernel_width
    return None


def describe_operation(operation: Operation) -> str:
    """Return what an operation is, in a few words."""
    window = window_of(operation)
    if window is not None:
        return f"convolution {window[0]}x{window[1]}"
    if isinstance(operation, PdpOperation):
        return f"pooling {operation.kernel[0]}x{operation.kernel[1]}"
    return str(operation.unit)


def correlation(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Return the correlation of two arrays; 0 where one is constant or not finite."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    # Not as matrix products: those start threads, which cost more than such short sums.
    norm = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / norm if norm > 0 else 0.0
