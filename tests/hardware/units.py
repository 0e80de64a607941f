"""Numbers of pooling.md, normalisation.md, moves.md, cpu.md and fp16.md."""

from collections.abc import Sequence

import numpy as np

from nvdla_quant.compiler.lowering.operations import PoolingStep
from nvdla_quant.compiler.lowering.tile import pooling_columns
from nvdla_quant.emulator.cpu import run_cpu, to_half
from nvdla_quant.emulator.fp16 import floats
from nvdla_quant.emulator.fp16.accumulator import accumulate, to_single
from nvdla_quant.emulator.fp16.mac import DIRECT, convolve, weight_blocks
from nvdla_quant.emulator.fp16.pdp import pool_halves
from nvdla_quant.emulator.integer.cdp import normalise
from nvdla_quant.emulator.integer.pdp import pool_values
from nvdla_quant.emulator.integer.rounding import shift_right
from nvdla_quant.emulator.moves import _contract
from nvdla_quant.emulator.operations import (
    CdpOperation,
    Converter,
    CpuOperation,
    Cube,
    Lut,
    PdpOperation,
    TableHalf,
)
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, POOLING_RECIPROCALS, Precision
from nvdla_quant.loadable.structs import EmuOperation, PoolMode
from tests.hardware.examples import example, ints, joined, single, table


def cube(height: int, width: int, channels: int = 1) -> Cube:
    """Return a cube of int16 for a unit that is given its values."""
    return Cube(0, 0, channels, height, width, 16, 2, 32 * width, 32 * width * height)


def pooling(
    kernel: int, size: int, pad: int = 0, padding: Sequence[int] = (0,) * 7, fp16: bool = False
) -> PdpOperation:
    """Return an average of one window a row and column."""
    output = size + 2 * pad - kernel + 1
    precision = Precision.FP16 if fp16 else Precision.INT16
    return PdpOperation(
        0,
        cube(size, size),
        cube(output, output),
        PoolMode.AVERAGE,
        (kernel, kernel),
        (1, 1),
        pad,
        pad,
        tuple(padding),
        precision,
    )


@example
def average() -> str:
    rows = []
    for kernel in (2, 3, 5, 6, 7, 8):
        cells = kernel * kernel
        totals = np.arange(1, 127 * cells)
        values = np.zeros((len(totals), 1, kernel, kernel), np.int16)
        values[:, 0, 0, 0] = totals
        made = pool_values(pooling(kernel, kernel), values).reshape(-1)
        other = np.flatnonzero(made != np.floor(totals / cells + 0.5))
        first = other[0] if len(other) else 0
        shown = (totals[first], f"{totals[first] / cells:.4f}", made[first]) if len(other) else ("", "", "")
        rows.append(
            (f"{kernel} x {kernel}", f"0x{POOLING_RECIPROCALS[kernel - 1]:05x}", len(other), len(totals), *shown)
        )
    head = ("window", "reciprocal", "sums rounded otherwise", "of", "the first", "exact", "PDP")
    return table(head, rows)


@example
def average_steps() -> str:
    total = 9 * 127
    once = int(shift_right(ints(total * 0x5555), 16, 32)[0])
    twice = int(shift_right(ints(once * 0x5555), 16, 32)[0])
    return (
        f"sum                        9 x 127 = {total}\n"
        f"x 0x5555 / 65536, width    {total * 0x5555 / 65536:.3f} -> {once}\n"
        f"x 0x5555 / 65536, height   {once * 0x5555 / 65536:.3f} -> {twice}"
    )


@example
def average_padding() -> str:
    values = np.full((1, 1, 3, 3), 90, np.int16)
    rows = []
    for name, padding in (("0, 0, ...", (0,) * 7), ("10, 20, ...", tuple(range(10, 80, 10)))):
        made = pool_values(pooling(3, 3, 1, padding), values)[0, 0]
        rows.append((name, *(joined(row) for row in made.tolist())))
    return table(("padding_value", "row 0", "row 1", "row 2"), rows)


@example
def pooling_width() -> str:
    rows = []
    for kernel, stride in ((2, 2), (3, 2), (3, 1), (5, 1), (8, 1)):
        step = PoolingStep.__new__(PoolingStep)
        object.__setattr__(step, "kernel", (kernel, kernel))
        object.__setattr__(step, "stride", (stride, stride))
        counts = [pooling_columns(target, step, 1) for target in (NV_FULL, NV_SMALL)]
        rows.append((f"{kernel} / {stride}", *counts, pooling_columns(NV_FULL, step, 2)))
    return table(("window / stride", "nv_full, nv_large int8", "nv_small int8", "nv_full fp16"), rows)


@example
def normalisation() -> str:
    only = np.arange(257, dtype=np.int64) * -64 + 16384
    flat = np.full(65, 0, np.int64)
    lut = Lut(
        TableHalf(flat, 0, 1 << 22, True, 0, (0, 0), (0, 0)),
        TableHalf(only, 0, 256 << 6, False, 6, (0, 0), (0, 0)),
        1, 1, 1,
    )  # fmt: skip
    operation = CdpOperation(
        0, cube(1, 1, 6), cube(1, 1, 6), lut, 3, True, True, Converter(0, 1, 0), Converter(0, 1, 14), Precision.INT8
    )
    values = np.array([10, -20, 60, 0, 100, 5], np.int8).reshape(1, 6, 1, 1)
    made = normalise(operation, values).reshape(-1).tolist()
    squares = [int(v) ** 2 for v in values.reshape(-1)]
    rows = []
    for c, value in enumerate(values.reshape(-1).tolist()):
        total = sum(squares[max(c - 1, 0) : c + 2])
        rows.append((c, value, total, made[c]))
    return table(("channel", "x", "sum of squares", "out"), rows)


@example
def contract() -> str:
    values = np.arange(8, dtype=np.int8).reshape(1, 4, 1, 2)
    spread = _contract(values, (2, 2), 1)[0, 0]
    lines = [f"source, group {g} (row {g // 2}, column {g % 2}): {joined(values[0, g, 0].tolist())}" for g in range(4)]
    return "\n".join([*lines, *(f"destination, row {y}: {joined(row)}" for y, row in enumerate(spread.tolist()))])


@example
def softmax() -> str:
    steps = np.array([20, 10, 0, -30], np.int8)
    rows = []
    shape = Cube(0, 0, 4, 1, 1, 4, 1, 4, 4)
    for scale_out in (1 / 127, 0.00093):
        operation = CpuOperation(0, EmuOperation.SOFTMAX, shape, shape, 0.1, scale_out, 1.0, 1.0, 0.0)
        made = run_cpu(operation, steps.reshape(1, 4, 1, 1)).reshape(-1).tolist()
        rows.append((f"{scale_out:.5f}", joined(made)))
    return table(("S_out", f"q of inputs {joined(steps.tolist())} with S_in 0.1"), rows)


@example
def power() -> str:
    steps = np.array([-128, -1, 0, 50, 127], np.int8)
    shape = Cube(0, 0, 5, 1, 1, 32, 1, 32, 32)
    operation = CpuOperation(0, EmuOperation.POWER, shape, shape, 0.1, 0.5, 2.0, 1.0, 1.0)
    made = run_cpu(operation, steps.reshape(1, 5, 1, 1)).reshape(-1).tolist()
    rows = [
        (q, f"{(1 + 0.1 * q) ** 2:.4f}", f"{(1 + 0.1 * q) ** 2 / 0.5:.4f}", m)
        for q, m in zip(steps.tolist(), made, strict=True)
    ]
    return table(("q", "(1 + 0.1 q)^2", "/ 0.5", "out"), rows)


@example
def float_formats() -> str:
    rows = []
    for name, exponents, mantissas in (("fp16", 5, 10), ("fp17", 6, 10), ("fp32", 8, 23)):
        bias = (1 << exponents - 1) - 1
        top = floats.largest(0, exponents, mantissas)
        number = (2 - 2.0**-mantissas) * 2.0 ** ((top >> mantissas) - bias)
        rows.append((name, exponents, mantissas, bias, f"0x{top:x}", f"{number:.9g}", f"2^{1 - bias}"))
    head = ("format", "exponent", "mantissa", "bias", "largest, bits", "largest", "smallest normal")
    return table(head, rows)


@example
def float_cases() -> str:
    def number(value: float) -> int:
        return int(np.float32(value).view(np.uint32))

    largest, tiny = floats.largest(0, 8, 23), 1 << 23
    cases = [
        ("-1 + 1", floats.add(number(-1), number(1), 8, 23), np.float32(-1) + np.float32(1)),
        ("1 + -1", floats.add(number(1), number(-1), 8, 23), np.float32(1) - np.float32(1)),
        ("0 + -0", floats.add(number(0.0), number(-0.0), 8, 23), np.float32(0)),
        ("largest + largest", floats.add(largest, largest, 8, 23), np.float32(np.inf)),
        ("2^-126 x 0.5", floats.multiply(tiny, number(0.5), 8, 23), np.float32(2.0**-127)),
        ("-2^-126 x 0.5", floats.multiply(number(-(2.0**-126)), number(0.5), 8, 23), np.float32(-(2.0**-127))),
    ]
    rows = ((what, f"0x{found:08x}", f"0x{int(ieee.view(np.uint32)):08x}") for what, found, ieee in cases)
    return table(("operation", "NVDLA", "IEEE 754"), rows)


def dot(weights: Sequence[float], data: Sequence[float]) -> np.float32:
    """Return what the MAC array and the accumulator make of one step."""
    lanes = np.arange(len(data), dtype=np.int64)
    patch = np.array(data, np.float16).view(np.uint16)
    blocks = weight_blocks(np.array([weights], np.float16).view(np.uint16))
    sums = np.empty((1, 1, 16), np.uint32)
    convolve(patch, np.zeros(1, np.int64), lanes, ints(0, len(data)), blocks, DIRECT, sums)
    return sums.view(np.float32)[0, 0, 0]


@example
def mac_alignment() -> str:
    cases = [
        ("one product", [1.5], [1.25]),
        ("2048 x 1 + 1/64 x 1", [2048.0, 1 / 64], [1.0, 1.0]),
        ("2048 x 32 + 1.001 x 0.01", [2048.0, 1.001], [32.0, 0.01]),
        ("60000 x 60000 + 0.001 x 0.001", [60000.0, 0.001], [60000.0, 0.001]),
        ("60000 x 60000 - 60000 x 60000 + 0.01 x 0.01", [60000.0, -60000.0, 0.01], [60000.0, 60000.0, 0.01]),
    ]
    rows = []
    for what, weights, data in cases:
        w, d = (np.array(side, np.float16).astype(np.float64) for side in (weights, data))
        rows.append((what, f"{float(dot(weights, data))!r}", f"{float((w * d).sum())!r}"))
    return table(("step", "array", "exact"), rows)


@example
def mac_carry() -> str:
    rows = []
    for w, d in ((1025.0, 128.0), (1025.0, 129.0), (1062.0, 128.0), (1136.0, 30.09375)):
        units = (float(dot([16384.0, w], [16384.0, d])) - 16384.0**2) / 64
        rows.append((f"{w:g} x {d:g}", f"{w * d / 64:g}", f"{units:g}"))
    return table(("second product", "exact, in units of 64", "array"), rows)


@example
def accumulator_ties() -> str:
    rows = []
    for name, first in (("2^38 + 1/2", 1), ("-2^38 - 1 - 1/2", -1)):
        mantissa = (1 << 38) if first > 0 else -(1 << 38) - 1
        # One half of the accumulator's last place, at exponent 101: 2**-1 = m * 2**(e - 50).
        found, exponent = accumulate(mantissa, 101, first, 49)
        rows.append((name, found, exponent))
    return table(("exact sum", "mantissa", "exponent (101: units)"), rows)


@example
def accumulator_to_single() -> str:
    rows = []
    for mantissa in ((1 << 38) + (1 << 14), -((1 << 38) + (1 << 14)), (1 << 38) + (1 << 14) - 1):
        made = to_single(mantissa, 101)
        rows.append((mantissa, f"{float(single(made)):.0f}", f"{float(np.float32(mantissa)):.0f}"))
    return table(("accumulator", "handed to the SDP", "IEEE 754, ties to even"), rows)


@example
def half_average() -> str:
    rows = []
    for kernel in (2, 3, 5, 7):
        values = np.arange(1, kernel * kernel + 1, dtype=np.float16).reshape(1, 1, kernel, kernel) * np.float16(8.125)
        made = pool_halves(pooling(kernel, kernel, fp16=True), values).reshape(-1)[0]
        exact = values.astype(np.float64).mean()
        rows.append((f"{kernel} x {kernel}", f"{exact:.6g}", f"{float(np.float16(exact)):.6g}", f"{float(made):.6g}"))
    return table(("window of 8.125 x (1, 2, ...)", "exact mean", "to fp16", "PDP"), rows)


@example
def half_ties() -> str:
    exact = [1 + 1 / 2048, 1 + 3 / 2048, -(1 + 1 / 2048)]
    rows = []
    for value in exact:
        ours = float(to_half(np.array([value], np.float32))[0])
        hardware = floats.single_to_half(int(np.float32(value).view(np.uint32)))
        rows.append((f"{value!r}", f"{ours!r}", f"{float(np.array([hardware], np.uint16).view(np.float16)[0])!r}"))
    return table(("fp32", "CPU's half, ties away", "SDP's half, ties to even"), rows)
