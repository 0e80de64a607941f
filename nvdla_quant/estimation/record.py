"""An estimate as ``estimate --json`` and the workflow's ``cost.json`` have it."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nvdla_quant.estimation.estimate import Estimate, Row
from nvdla_quant.hardware.targets import Precision, Target

if TYPE_CHECKING:
    from nvdla_quant.estimation.fit import Fit, Value


def record(estimate: Estimate, layers: Mapping[int, Sequence[str]] | None = None) -> dict[str, Any]:
    """Return an estimate as plain values.

    Parameters
    ----------
    estimate : Estimate
        The estimate.
    layers : Mapping[int, Sequence[str]], optional
        Layers that each operation computes, by its number.
    """
    memory, traffic = estimate.memory, estimate.traffic
    return {
        "target": estimate.target.name,
        "memory": {
            "read_latency": memory.read_latency,
            "write_latency": memory.write_latency,
            "read_bytes": memory.read_bytes,
            "write_bytes": memory.write_bytes,
            "shared": memory.shared,
            "outstanding": memory.outstanding,
            "host_gap": memory.host_gap,
        },
        "clock": memory.clock,
        "cycles": round(estimate.cycles),
        "ms": 1e3 * estimate.seconds,
        "images_per_second": estimate.images_per_second,
        "macs": estimate.macs,
        "peak_macs_per_cycle": peak_macs(estimate.target),
        "dram_bytes": traffic.bytes,
        "bytes_read": traffic.read,
        "bytes_written": traffic.output,
        "peak_bytes_per_cycle": estimate.peak_bandwidth,
        "bound": estimate.bound,
        "extrapolated": list(estimate.extrapolated),
        "operations": [_operation(row, layers) for row in estimate.rows],
    }


def fit_record(fit: "Fit") -> dict[str, Any]:
    """Return what fits measured times as plain values; a deviation that the times do not give is None."""

    def value(found: "Value") -> dict[str, Any]:
        deviation = found.deviation if math.isfinite(found.deviation) else None
        return {"value": found.value, "deviation": deviation, "determined": found.determined}

    return {
        "latency": value(fit.latency),
        "bandwidth": value(fit.bandwidth),
        "median_error": fit.error,
        "operations": [
            {"op": one.operation, "unit": one.unit, "measured": one.measured, "fitted": one.fitted, "error": one.error}
            for one in fit.residuals
        ],
    }


def peak_macs(target: Target) -> dict[str, int]:
    """Return how many multiplications the MAC array of a target does in a cycle, by precision."""
    width = {Precision.INT8: 1, Precision.INT16: 2, Precision.FP16: 2}
    covered = [precision for precision in Precision if precision in target.precisions]
    return {precision.value: target.atomic_c * target.kernels_per_group(width[precision]) for precision in covered}


def _operation(row: Row, layers: Mapping[int, Sequence[str]] | None) -> dict[str, Any]:
    named = {} if layers is None else {"layers": list(layers_of(row, layers))}
    return {
        "op": row.operation,
        "with": list(row.others),
        "unit": row.unit,
        **named,
        "start": round(row.start),
        "cycles": round(row.cycles),
        "bound": row.bound,
        "macs": row.macs,
        "bytes_read": row.traffic.read,
        "bytes_written": row.traffic.output,
        "bytes": {
            "data": row.traffic.data,
            "weights": row.traffic.weights,
            "operands": row.traffic.operands,
            "output": row.traffic.output,
        },
        "extrapolated": bool(row.extrapolated),
    }


def layers_of(row: Row, layers: Mapping[int, Sequence[str]]) -> tuple[str, ...]:
    """Return the layers that a row computes; each once."""
    names = (name for number in (row.operation, *row.others) for name in layers.get(number, ()))
    return tuple(dict.fromkeys(names))
