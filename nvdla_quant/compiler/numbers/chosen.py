"""The scale of each weight that a loadable will have, for whoever rounds weights before they are compiled."""

from collections.abc import Mapping

import numpy as np

from nvdla_quant.compiler.lowering.lower import lower
from nvdla_quant.compiler.lowering.operations import ConvolutionStep
from nvdla_quant.compiler.numbers.quantize import effective_scales, quantize_convolution
from nvdla_quant.hardware.targets import Precision, QuantizationMode, Target
from nvdla_quant.network.graph import Network, Weights
from nvdla_quant.network.passes import for_hardware
from nvdla_quant.table.table import CalibrationTable


def chosen_scales(
    network: Network, table: CalibrationTable, target: Target, mode: QuantizationMode
) -> Mapping[str, Weights]:
    """Return the scales that the compiler gives the weights of each convolution and inner product.

    They include what it raises for biases and for multipliers that are whole numbers. The same weights with these
    scales as given ones (`Convolution.scales`) are compiled to the same integers.

    Parameters
    ----------
    network : Network
        With its weights, as `compile_network` takes it.
    table : CalibrationTable
        Its fixed table.
    target : Target
        The hardware.
    mode : QuantizationMode
        One scale for a layer, or one for each filter.

    Returns
    -------
    Mapping[str, Weights]
        (outputs,) float32 by layer of ``passes.for_hardware(network)``. Deconvolutions are not among them.

    Raises
    ------
    CompileError
        Scales of input and output are too far apart.
    TableError
        The table lacks an entry.
    """
    lowered = lower(for_hardware(network), target, Precision.INT8)
    scales, _ = effective_scales(lowered, table)
    found: dict[str, Weights] = {}
    for step in lowered.steps:
        if isinstance(step, ConvolutionStep) and step.origin is not None and not step.transposed:
            chosen = quantize_convolution(step, scales, mode).scales
            assert chosen is not None, "int8"
            # A little less than it is: dividing by it again must not come out above the multiplier that it stands for.
            given = np.nextafter((chosen / abs(step.origin.factor)).astype(np.float32), np.float32(0))
            found[step.layers[0]] = np.nextafter(given, np.float32(0))
    return found
