"""Reading single fields of descriptors, and refusing those that cannot be emulated."""

import numpy as np

from nvdla_quant.emulator.operations import Converter
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.loadable.structs import ProcessorPrecision

PRECISIONS = {
    ProcessorPrecision.INT8: Precision.INT8,
    ProcessorPrecision.INT16: Precision.INT16,
    ProcessorPrecision.FP16: Precision.FP16,
}
ELEMENT_BYTES = {Precision.INT8: 1, Precision.INT16: 2, Precision.FP16: 2}


def refuse(where: str, field: str, value: object, expected: str) -> EmulationError:
    """Return the error for a field whose value is not modelled or not allowed."""
    return EmulationError(f"{where}: {field} is {value}, expected {expected}")


def precision_of(value: int, target: Target, where: str, field: str) -> Precision:
    """Return the precision that a descriptor's field means, where `target` has it."""
    if value not in PRECISIONS:
        raise refuse(where, field, value, "INT8 (0), INT16 (1) or FP16 (2)")
    precision = PRECISIONS[ProcessorPrecision(value)]
    if precision not in target.precisions:
        raise EmulationError(f"{where}: {field} is {precision}, which {target.name} does not have")
    return precision


def converter_of(descriptor: np.void) -> Converter:
    """Return a ``dla_cvt_param`` without its enable bit."""
    return Converter(int(descriptor["offset"]), int(descriptor["scale"]), int(descriptor["truncate"]) & 63)


def signed(value: int, bits: int) -> int:
    """Return the low `bits` of `value` as a signed number."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


def shape_of(descriptor: np.void) -> tuple[int, int, int]:
    """Return (C, H, W) of a ``dla_data_cube``."""
    return int(descriptor["channel"]), int(descriptor["height"]), int(descriptor["width"])
