"""The worked numbers of docs/hardware: every block behind a ``computed`` mark, by name, computed by the package.

`tests.hardware_docs` writes them into the pages, and `tests.unit.test_hardware_docs` compares them.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.cbuf import Shortage, Work, divide, feature_entries, image_entries, weight_banks
from nvdla_quant.compiler.fixed import factorise
from nvdla_quant.compiler.layout import feature_surface, image_surface
from nvdla_quant.compiler.operations import ConvolutionStep, PoolingStep
from nvdla_quant.compiler.pack import pack_image_weights, pack_weights
from nvdla_quant.compiler.quantize import quantize_convolution
from nvdla_quant.compiler.tile import pooling_columns, post_extension
from nvdla_quant.emulator import fp16_floats as floats
from nvdla_quant.emulator.cdp import normalise
from nvdla_quant.emulator.cpu import run_cpu, to_half
from nvdla_quant.emulator.fp16_mac import DIRECT, accumulate, convolve, to_single, weight_blocks
from nvdla_quant.emulator.fp16_pdp import pool_halves
from nvdla_quant.emulator.lut import look_up
from nvdla_quant.emulator.moves import _contract
from nvdla_quant.emulator.operations import (
    CdpOperation,
    Converter,
    ConvOperation,
    CpuOperation,
    Cube,
    Lut,
    Operand,
    PdpOperation,
    SdpUnit,
    TableHalf,
)
from nvdla_quant.emulator.pdp import pool_values
from nvdla_quant.emulator.pixels import PIXELS, _convert, _low_signed
from nvdla_quant.emulator.rounding import shift_left, shift_right
from nvdla_quant.emulator.sdp import constant_operands, integer_chain
from nvdla_quant.emulator.weights import decompress
from nvdla_quant.emulator.winograd import INPUT, OUTPUT
from nvdla_quant.hardware import NV_FULL, NV_LARGE, NV_SMALL, POOLING_RECIPROCALS, TARGETS, Precision, QuantizationMode
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.layout import Layouts
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import MemoryFlags
from nvdla_quant.loadable.structs import DependencyEvent, EmuOperation, Engine, PoolMode, SdpAlu
from nvdla_quant.loadable.tasks import TaskMemory, Window, static_bytes
from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    ReLU,
    Scale,
    Softmax,
    Tensor,
)
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.fusion import fused_end
from nvdla_quant.table.naming import tensor_names
from nvdla_quant.table.table import CalibrationTable

GOLDEN = Path(__file__).resolve().parent / "data" / "golden"
EXAMPLES: dict[str, Callable[[], str]] = {}


def example(function: Callable[[], str]) -> Callable[[], str]:
    """Register `function` under its name, with hyphens."""
    EXAMPLES[function.__name__.replace("_", "-")] = function
    return function


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return columns side by side, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(_numeric(row[i]) for row in cells[1:]) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    )


def _numeric(cell: str) -> bool:
    return cell == "" or cell.replace(",", "").lstrip("-+0123456789.")[:2] in ("", "e-", "e+")


def ints(*values: int) -> NDArray[np.int64]:
    """Return an int64 array."""
    return np.array(values, np.int64)


def joined(values: Iterable[object]) -> str:
    """Return values with spaces between."""
    return " ".join(map(str, values))


def bits(value: float) -> int:
    """Return the bits of a half."""
    return int(np.float16(value).view(np.uint16))


def single(pattern: int) -> np.float32:
    """Return the number of fp32 bits."""
    return np.array([pattern], np.uint32).view(np.float32)[0]


# ---- configurations and integers


@example
def configurations() -> str:
    rows = [
        ("MAC: channels x kernels a cycle, int8", *(f"{t.atomic_c} x {t.atomic_k}" for t in TARGETS.values())),
        ("feature atom, bytes", *(t.feature_atom_bytes for t in TARGETS.values())),
        (
            "CBUF: banks x entries x bytes",
            *(f"{t.cbuf_banks} x {t.cbuf_bank_entries} x {t.cbuf_entry_bytes}" for t in TARGETS.values()),
        ),
        ("CBUF, bytes", *(t.cbuf_banks * t.cbuf_bank_bytes for t in TARGETS.values())),
        ("precisions", *(", ".join(sorted(t.precisions)) for t in TARGETS.values())),
    ]
    units = {"Y": "y", "LUT of Y": "lut", "BDMA": "bdma", "Rubik": "rubik", "Winograd": "winograd"}
    units |= {"compressed weights": "weight_compression", "several images in one convolution": "batch"}
    for name, field in units.items():
        rows.append((name, *("yes" if getattr(t, f"has_{field}") else "-" for t in TARGETS.values())))
    return table(("", *TARGETS), rows)


@example
def rounding() -> str:
    cases = [(5, 1), (-5, 1), (4, 3), (-4, 3), (3, 3), (11, 2), (-10, 2), (300, 0)]
    rows = ((x, s, f"{x / 2**s:g}", int(shift_right(ints(x), s, 32)[0])) for x, s in cases)
    return table(("x", "s", "x / 2^s", "rnd(x, s)"), rows)


@example
def saturation() -> str:
    rows = [
        ("sat8(rnd(1000, 2))", int(shift_right(ints(1000), 2, 8)[0])),
        ("sat8(rnd(-1000, 2))", int(shift_right(ints(-1000), 2, 8)[0])),
        ("sat32(40000 << 20)", int(shift_left(ints(40000), 20, 32)[0])),
        ("sat17(rnd(1 << 20, 3))", int(shift_right(ints(1 << 20), 3, 17)[0])),
    ]
    return table(("expression", "value"), rows)


@example
def factorisation() -> str:
    rows = []
    for ratio in (0.0123, 1 / 3, 0.5, 1.0, 3.7, 2000.0):
        found = factorise(ratio, "example")
        value = found.scale / 2**found.shift
        rows.append((f"{ratio:.6g}", found.scale, found.shift, f"{value:.9g}", f"{value / ratio - 1:.1e}"))
    return table(("r", "s", "t", "s / 2^t", "relative error"), rows)


# ---- convolution


@example
def input_converter() -> str:
    converter = Converter(128, 16384, 14)
    rows = []
    for raw in (0, 1, 127, 128, 200, 255):
        cells: list[object] = [raw]
        for signed in (False, True):
            value = _low_signed(np.array([raw]), 8) if signed else np.array([raw])
            cells.append(int(_convert(value, converter, Precision.INT8)[0]))
        half = Converter(0, 16320, 15)
        cells.append(int(_convert(np.array([raw]), half, Precision.INT8)[0]))
        rows.append(cells)
    head = ("byte", "unsigned, (128, 16384, 14)", "signed, (128, 16384, 14)", "unsigned, (0, 16320, 15)")
    return table(head, rows)


@example
def accumulator_range() -> str:
    worst = 128 * 128
    rows = [
        ("22 bits of a MAC cell", f"{1 << 21:,}", f"{(1 << 21) // worst:,}"),
        ("34 bits of the RTL's int8 accumulator", f"{1 << 33:,}", f"{(1 << 33) // worst:,}"),
        ("48 bits of the C-model's accumulator", f"{1 << 47:,}", f"{(1 << 47) // worst:,}"),
    ]
    return table(("register", "magnitude", "products of (-128) x (-128)"), rows)


@example
def winograd() -> str:
    kernel = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    tile = np.arange(16).reshape(4, 4) % 7
    doubled = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
    weights = doubled @ kernel @ doubled.T
    data = INPUT @ tile @ INPUT.T
    outputs = (OUTPUT @ (data * weights) @ OUTPUT.T).astype(int)
    direct = [[int((tile[y : y + 3, x : x + 3] * kernel).sum()) for x in range(2)] for y in range(2)]
    shifted = shift_right(data, 1, 8)
    coarse = (OUTPUT @ (shifted * weights) @ OUTPUT.T).astype(int)
    lines = []
    for name, matrix in (
        ("tile d", tile),
        ("kernel g", kernel),
        ("(2G) g (2G)^T, what is stored", weights),
        ("B^T d B", data),
        ("A^T [product] A, pra_truncate 0", outputs),
        ("4 x direct convolution", 4 * np.array(direct)),
        ("rnd(B^T d B, 1)", shifted),
        ("A^T [product] A, pra_truncate 1", coarse),
    ):
        lines += [f"{name}:", *("    " + " ".join(f"{value:4d}" for value in row) for row in matrix.tolist())]
    return "\n".join(lines)


# ---- SDP


def unit(name: str, **fields: object) -> SdpUnit:
    """Return a unit with all parts bypassed but those given; operands are registers."""
    plain = {"alu": None, "alu_operand": None, "mul_operand": None, "interleaved": False, "alu_shift": 0}
    known = {**plain, "truncate": 0, "relu": False, "prelu": False, **fields}
    for part in ("alu_operand", "mul_operand"):
        if isinstance(known[part], int):
            known[part] = Operand(register=known[part])
    return SdpUnit(name, **known)  # type: ignore[arg-type]


def chain(value: int, *units: SdpUnit, converter: Converter = Converter(0, 1, 0), output: Precision) -> int:  # noqa: B008
    """Return what the SDP makes of one value."""
    operands = constant_operands(units)
    return int(integer_chain(ints(value), units, operands, None, converter, output).reshape(-1)[0])


@example
def x_unit() -> str:
    cases = [
        (1000, {"alu": SdpAlu.SUM, "alu_operand": 50, "alu_shift": 3}),
        (1000, {"mul_operand": 19661, "truncate": 15}),
        (1000, {"alu": SdpAlu.SUM, "alu_operand": -1200, "mul_operand": 19661, "truncate": 15}),
        (1000, {"alu": SdpAlu.SUM, "alu_operand": -1200, "mul_operand": 19661, "truncate": 15, "relu": True}),
        (1000, {"truncate": 2}),
        (-1000, {"mul_operand": 8192, "truncate": 15, "prelu": True}),
        (1000, {"mul_operand": 8192, "truncate": 15, "prelu": True}),
        (1000, {"truncate": 2, "prelu": True}),
    ]
    rows = []
    for value, fields in cases:
        alu = f"+ ({fields['alu_operand']} << {fields.get('alu_shift', 0)})" if "alu" in fields else ""
        mul = f"x {fields['mul_operand']}" if "mul_operand" in fields else ""
        act = "PReLU" if fields.get("prelu") else "ReLU" if fields.get("relu") else ""
        result = chain(value, unit("x1", **fields), output=Precision.INT16)
        rows.append((value, alu, mul, fields.get("truncate", 0), act, result))
    return table(("in", "ALU", "MUL", "truncate", "act", "out"), rows)


@example
def prelu_wrap() -> str:
    fields = {"alu": SdpAlu.SUM, "alu_operand": 32767, "alu_shift": 16, "mul_operand": 1}
    largest = (1 << 31) - 1
    rows = []
    for prelu in (False, True):
        made = unit("x1", **fields, prelu=prelu)
        shifted = unit("x2", truncate=16)
        rows.append(("PReLU" if prelu else "none", chain(largest, made, shifted, output=Precision.INT16)))
    return table(("act", "((2^31 - 1) + (32767 << 16)) >> 16"), rows)


@example
def y_unit() -> str:
    cases = [
        (100, {"mul_operand": 300, "truncate": 4, "alu": SdpAlu.SUM, "alu_operand": 25}),
        (-100, {"mul_operand": 300, "truncate": 4, "alu": SdpAlu.MAX, "alu_operand": -1000}),
        (100, {"alu": SdpAlu.EQL, "alu_operand": 100}),
        (100, {"alu": SdpAlu.EQL, "alu_operand": 101}),
    ]
    rows = []
    for value, fields in cases:
        mul = f"x {fields['mul_operand']} >> {fields['truncate']}" if "mul_operand" in fields else ""
        alu = f"{fields['alu'].name} {fields['alu_operand']}"
        rows.append((value, mul, alu, chain(value, unit("y", **fields), output=Precision.INT16)))
    return table(("in", "MUL first", "then ALU", "out"), rows)


@example
def output_converter() -> str:
    cases = [(12345, 0, 21000, 22), (-12345, 0, 21000, 22), (12345, 345, 1, 5), (10**6, 0, 3, 4)]
    rows = []
    for value, offset, scale, shift in cases:
        made = [chain(value, converter=Converter(offset, scale, shift), output=o) for o in Precision]
        by_output = dict(zip(Precision, made, strict=True))
        rows.append((value, offset, scale, shift, *(by_output[o] for o in ("int8", "int16", "fp16"))))
    return table(("x", "offset", "scale", "shift", "to int8", "to int16", "to fp16"), rows)


@example
def layer() -> str:
    accumulator, bias, shift, multiplier, truncate = 20000, -1234, 2, 26214, 22
    biased = accumulator + (bias << shift)
    per_kernel = chain(
        accumulator,
        unit("x1", alu=SdpAlu.SUM, alu_operand=bias, alu_shift=shift, relu=True),
        converter=Converter(0, multiplier, truncate),
        output=Precision.INT8,
    )
    per_filter = chain(
        accumulator,
        unit(
            "x1",
            alu=SdpAlu.SUM,
            alu_operand=bias,
            alu_shift=shift,
            mul_operand=multiplier,
            truncate=truncate,
            relu=True,
        ),
        output=Precision.INT8,
    )
    lines = [
        f"accumulator                      {accumulator}",
        f"+ ({bias} << {shift})                   {biased}",
        f"x {multiplier} / 2^{truncate}                   {biased * multiplier / 2**truncate:.4f}",
        f"X1 adds, C multiplies            {per_kernel}",
        f"X1 adds and multiplies, C 1 / 1  {per_filter}",
    ]
    return "\n".join(lines)


def small_lut(exponential: bool = True) -> Lut:
    """Return a table of x squared over 16 in LE, and of x itself in LO."""
    exp = np.array([1 << min(i, 14) for i in range(65)], np.int64)
    only = np.arange(257, dtype=np.int64) * 4
    return Lut(
        TableHalf(exp, 0, 1 << 20, exponential, 2, (1, 0), (1, 4)),
        TableHalf(only, -100, 924, False, 2, (2, 1), (0, 0)),
        hybrid_priority=1,
        underflow_priority=0,
        overflow_priority=0,
    )


@example
def lut() -> str:
    made = small_lut()
    none = TableHalf(np.zeros(257, np.int64), (1 << 31) - 1, (1 << 31) - 1, False, 0, (0, 0), (0, 0))
    rows = []
    for value in (-150, -100, 3, 4, 6, 100, 923, 924, 5000):
        both = int(look_up(ints(value), made)[0])
        alone = Lut(made.linear_exp, none, 0, 0, 0)
        only = Lut(
            TableHalf(np.zeros(65, np.int64), *[(1 << 31) - 1] * 2, False, 0, (0, 0), (0, 0)), made.linear_only, 1, 1, 1
        )
        rows.append((value, int(look_up(ints(value), alone)[0]), int(look_up(ints(value), only)[0]), both))
    return table(("x", "LE says", "LO says", "result"), rows)


# ---- PDP, CDP, Rubik, CPU


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


# ---- fp16


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


# ---- layouts


@example
def cube_addresses() -> str:
    lines = []
    for target in (NV_FULL, NV_SMALL):
        surface = feature_surface((40, 6, 5), target, 1)
        n = target.feature_atom_bytes
        lines.append(
            f"{target.name}: line stride {surface.line_stride}, surface stride {surface.surface_stride}, "
            f"{surface.surfaces} surfaces, {surface.size} bytes"
        )
        for c, y, x in ((0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 1, 0), (39, 5, 4)):
            place = c // n * surface.surface_stride + y * surface.line_stride + x * n + c % n
            lines.append(f"    (c {c:2}, y {y}, x {x}) at byte {place}")
    return "\n".join(lines)


@example
def image_strides() -> str:
    rows = []
    for width, height in ((28, 28), (224, 224), (227, 227), (30, 30)):
        made = [image_surface(Tensor("data", (3, height, width), "data"), size) for size in (1, 2)]
        rows.append((f"{width} x {height}", *(value for s in made for value in (s.line_stride, s.size))))
    return table(("pixels", "int8 line", "int8 bytes", "fp16 line", "fp16 bytes"), rows)


@example
def image_formats() -> str:
    rows = []
    for number, pixels in PIXELS.items():
        sizes = " + ".join(map(str, pixels.plane_bytes))
        places = joined(
            f"{c.plane}:{c.byte}" if c.bytes < 4 else f"bits {c.shift}-{c.shift + c.bits - 1}"
            for c in pixels.components
        )
        rows.append((number, pixels.name, pixels.precision, sizes, places))
    return table(("number", "name", "precision", "bytes a pixel", "where R G B A (Y U V A) stand, plane:byte"), rows)


# ---- weights


def order(pack: Callable[[NDArray[np.int8]], bytes], shape: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """Return the coordinates of the elements of a packed stream, found by packing each coordinate."""
    found = []
    for axis in range(len(shape)):
        grid = np.broadcast_to(
            np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape
        )
        found.append(np.frombuffer(pack(np.ascontiguousarray(grid.astype(np.int8))), np.int8)[:count].tolist())
    return list(zip(*found, strict=True))


def runs(stream: Sequence[tuple[int, ...]], names: str) -> list[str]:
    """Return lines of a stream: elements that differ only in the last varying coordinate stand together."""
    lines, start = [], 0
    while start < len(stream):
        end, axis = start + 1, None
        while end < len(stream):
            changed = [a for a in range(len(names)) if stream[end][a] != stream[end - 1][a]]
            if len(changed) != 1 or stream[end][changed[0]] != stream[end - 1][changed[0]] + 1:
                break
            if axis not in (None, changed[0]):
                break
            axis, end = changed[0], end + 1
        first, last = stream[start], stream[end - 1]
        text = ", ".join(f"{n} {a}" if a == b else f"{n} {a}..{b}" for n, a, b in zip(names, first, last, strict=True))
        lines.append(f"bytes {start:3}..{end - 1:3}: {text}")
        start = end
    return lines


@example
def direct_order() -> str:
    shape = (9, 10, 1, 2)
    stream = order(lambda weights: pack_weights(weights, NV_SMALL), shape, 180)
    lines = runs(stream, "kcrs")
    shown = [*lines[:3], "...", *lines[7:10], "...", *lines[15:18], "...", *lines[-4:]]
    packed = len(pack_weights(np.zeros(shape, np.int8), NV_SMALL))
    return "\n".join([*shown, f"bytes 180..{packed - 1}: zeros"])


@example
def image_order() -> str:
    shape = (2, 4, 3, 2)
    stream = order(lambda weights: pack_image_weights(weights, NV_FULL, 1), shape, 48)
    return "\n".join(runs(stream, "kcrs"))


@example
def joined_rows() -> str:
    rows = []
    for target in (NV_FULL, NV_SMALL):
        for kernel, stride in ((3, 1), (5, 1), (7, 2), (8, 1), (11, 4)):
            vector = 4 * kernel
            exponent = post_extension(target, kernel, vector, stride)
            rows.append(
                (target.name, f"{kernel} / {stride}", vector, 1 << exponent, exponent, target.atomic_c // vector)
            )
    head = ("target", "kernel / stride", "vector", "rows joined", "post_extension", "floor(C / vector)")
    return table(head, rows)


@example
def weight_sizes() -> str:
    rows = []
    for name, kernels, channels, side in (
        ("LeNet conv2", 50, 20, 5),
        ("LeNet ip2", 10, 500, 1),
        ("VGG conv5", 512, 512, 3),
    ):
        weights = np.zeros((kernels, channels, side, side), np.int8)
        sizes = [len(pack_weights(weights, target)) for target in (NV_FULL, NV_LARGE, NV_SMALL)]
        rows.append((name, f"{kernels} x {channels} x {side} x {side}", weights.size, *sizes))
    return table(("layer", "weights", "elements", "nv_full", "nv_large", "nv_small"), rows)


@example
def compression() -> str:
    elements = [0, 5, 0, 0, -3, 0, 0, 0, 7, 7, 0, 0, 0, 0, 0, 1]
    mask = np.packbits(np.array(elements) != 0, bitorder="little")
    kept = np.array([value for value in elements if value], np.int8)
    operation = ConvOperation(
        0, Cube(0, 0, 8, 1, 1, 32, 1, 32, 32), Window(0, 0, 0), 2, 1, 1, 1, 1, None, 0, (1, 1), (1, 1), 0, 0, 0.0,
        Precision.INT8, None, True, 0,
    )  # fmt: skip
    sizes = np.array([len(kept)], "<u4")
    stream = decompress(operation, kept.view(np.uint8), mask, sizes.view(np.uint8), NV_FULL, "example").view(np.int8)
    assert stream.tolist() == elements
    return (
        f"stream     {joined(elements)}\n"
        f"WMB        {joined(f'0x{byte:02x}' for byte in mask)}\n"
        f"weights    {joined(kept.tolist())}\n"
        f"WGS        {sizes[0]} (one group)"
    )


# ---- convolution buffer


@example
def entries() -> str:
    rows = []
    for channels, width, size in (
        (3, 32, 1),
        (20, 12, 1),
        (32, 14, 1),
        (64, 56, 1),
        (96, 14, 1),
        (100, 14, 1),
        (100, 14, 2),
    ):
        made = [feature_entries(target, channels, width, size) for target in (NV_FULL, NV_LARGE, NV_SMALL)]
        rows.append((f"{channels} x {width}", size, *made))
    for width, size in ((28, 1), (224, 1)):
        made = [image_entries(target, width, 0, size) for target in (NV_FULL, NV_LARGE, NV_SMALL)]
        rows.append((f"image, {width}", size, *made))
    return table(("channels x width", "bytes", "nv_full", "nv_large", "nv_small"), rows)


def work(
    kernels: int, channels: int, kernel: int, size: int, stride: int = 1, pad: int = 0, image: bool = False
) -> Work:
    """Return a convolution of a square cube."""
    output = (size + 2 * pad - kernel) // stride + 1
    pair = (kernel, kernel)
    return Work(kernels, channels, pair, pair, (stride,) * 2, (pad,) * 2, (size,) * 2, (output,) * 2, 1, image)


@example
def divisions() -> str:
    cases = [
        ("LeNet conv2 5x5", work(50, 20, 5, 12)),
        ("LeNet ip1 4x4", work(500, 50, 4, 4)),
        ("256 to 512, 3x3 on 64x64", work(512, 256, 3, 64, pad=1)),
        ("512 to 512, 3x3 on 14x14", work(512, 512, 3, 14, pad=1)),
        ("ResNet conv1 7x7 / 2", work(64, 4, 7, 224, 2, 3, image=True)),
    ]
    rows = []
    for name, asked in cases:
        for target in (NV_FULL, NV_LARGE, NV_SMALL):
            found = divide(target, asked)
            assert not isinstance(found, Shortage)
            runs_ = len(found.rows) * len(found.columns)
            rows.append((name, target.name, found.data, found.weights, found.mode, runs_, found.kernels))
    return table(("convolution", "target", "data", "weights", "mode", "runs", "kernels a run"), rows)


@example
def bank_limit() -> str:
    rows = []
    for target in (NV_FULL, NV_LARGE, NV_SMALL):
        most = (target.cbuf_banks - 1) * target.cbuf_bank_bytes // target.atomic_k
        fits = weight_banks(target, most * target.atomic_k)
        rows.append((target.name, target.cbuf_banks, target.cbuf_bank_bytes, target.atomic_k, most, fits))
    return table(("target", "banks", "bank, bytes", "kernels a group", "largest C R S", "banks of a group"), rows)


# ---- firmware and loadable


def golden(name: str) -> TaskMemory:
    """Return the first task of a golden loadable."""
    loadable = read_loadable(GOLDEN / name / "loadable.nvdla")
    return TaskMemory(loadable, loadable.tasks[0], static_bytes(loadable), Layouts(False, False))


def event_name(event: int) -> str:
    """Return the name of an event of the firmware."""
    return DependencyEvent(event).name.removeprefix("OP_").lower()


@example
def dependencies() -> str:
    task = golden("resnets-nv-small-int8-perfilter")
    network = task.records(0, structs.NETWORK, 1, "network descriptor")[0]
    count = int(network["num_operations"])
    common = task.records(int(network["dependency_graph_index"]), structs.COMMON_OP, count, "graph")
    rows = []
    for index, entry in enumerate(common[:8]):
        named = [
            f"{Engine(unit).name} {int(to['index'])} ({event_name(int(to['event']))})"
            for unit, to in enumerate(entry["consumers"])
            if to["index"] >= 0
        ]
        parent = entry["fused_parent"]
        fused = f"{int(parent['index'])} (enabled)" if parent["index"] >= 0 else "-"
        rows.append(
            (index, Engine(int(entry["op_type"])).name, int(entry["dependency_count"]), fused, ", ".join(named))
        )
    heads = joined(f"{unit.name} {int(network['op_head'][unit])}" for unit in Engine)
    return f"op_head: {heads}\n" + table(("op", "unit", "waits for", "fused_parent", "consumers"), rows)


@example
def lists() -> str:
    loadable = read_loadable(GOLDEN / "v-conv0-nobias-relu-nv-small-int8-perkernel" / "loadable.nvdla")
    rows = []
    for memory in loadable.memories:
        flags = "+".join(flag.name or "" for flag in type_flags(memory.flags))
        rows.append((memory.id, flags, memory.size, joined(memory.contents)))
    (task,) = loadable.tasks
    tensors = (
        f"tensor {t.name}: memory {t.mem_id}, {t.n} x {t.c} x {t.h} x {t.w}, strides {joined(t.strides[:3])}, "
        f"format {t.data_format}, category {t.data_category}, pixel format {t.pixel_format}"
        for t in loadable.tensors
    )
    moves = (
        f"relocation: address {r.address_id}, {'line' if r.type == 1 else 'surface'} stride "
        f"at byte {r.offset} of memory {r.write_id}"
        for r in loadable.relocations
    )
    text = table(("memory", "flags", "bytes", "contents"), rows)
    return "\n".join([text, f"task 0: address_list {joined(task.address_list)}", *tensors, *moves])


def type_flags(flags: int) -> list[object]:
    """Return the single flags of a memory."""
    return [flag for flag in MemoryFlags if flag and flags & flag]


@example
def struct_sizes() -> str:
    names = ["NETWORK", "COMMON_OP", "CUBE", "CVT", "CONV_OP", "SDP_UNIT", "SDP_OP", "PDP_OP", "CDP_OP", "RUBIK_OP"]
    names += ["BDMA_OP", "CONV_SURFACE", "SDP_SURFACE", "TWO_CUBES", "BDMA_SURFACE", "LUT"]
    names += ["EMU_NETWORK", "EMU_OP", "EMU_BUFFER", "EMU_BUFFERS"]
    rows: list[tuple[object, object]] = [(name, getattr(structs, name).itemsize) for name in names]
    rows += [("OPERATION_BYTES", structs.OPERATION_BYTES), ("SURFACE_BYTES", structs.SURFACE_BYTES)]
    return table(("record", "bytes"), rows)


@example
def older_offsets() -> str:
    rows = []
    for name in ("CUBE", "CONV_SURFACE", "SDP_SURFACE", "TWO_CUBES", "EMU_OP", "EMU_BUFFERS"):
        today = getattr(structs, name)
        older = structs.CONV_SURFACE if name == "CUBE" else today
        changed = structs.OLDER[older]["src_data"] if name == "CUBE" else structs.OLDER[older]
        rows.append((name, today.itemsize, changed.itemsize))
    return table(("record", "today", "older"), rows)


# ---- calibration table


def residual() -> Network:
    """Return a network with in-place layers, a pooling and a sum."""

    def weights(*shape: int) -> NDArray[np.float32]:
        return np.full(shape, 0.01, np.float32)

    ones = np.ones(4, np.float32)
    pairs = (1, 1)
    layers = [
        ("conv1", Convolution(weights(4, 1, 3, 3), None, pad=pairs), ("data",), "conv1"),
        ("bn1", BatchNorm(ones, ones, 1e-5), ("conv1",), "conv1"),
        ("scale1", Scale(ones, ones), ("bn1",), "conv1"),
        ("relu1", ReLU(), ("scale1",), "conv1"),
        ("pool1", Pooling("max", (2, 2), (2, 2)), ("relu1",), "pool1"),
        ("conv2", Convolution(weights(4, 4, 3, 3), ones, pad=pairs), ("pool1",), "conv2"),
        ("sum", Eltwise("sum"), ("conv2", "pool1"), "sum"),
        ("relu2", ReLU(), ("sum",), "sum"),
        ("fc", InnerProduct(weights(10, 4 * 4 * 4), None), ("relu2",), "fc"),
        ("prob", Softmax(), ("fc",), "prob"),
    ]
    made = [Layer(name, operation, inputs) for name, operation, inputs, _ in layers]
    blobs = {name: blob for name, _, _, blob in layers}
    return assemble("residual", [Tensor("data", (1, 8, 8), "data")], made, blobs)  # type: ignore[arg-type]


@example
def names() -> str:
    network = residual()
    caches = tensor_names(network)
    rows = [(tensor, cache, fused_end(network, tensor)) for tensor, cache in caches.items()]
    return table(("table (layer)", "cache (blob)", "its fused operation has the scale of"), rows)


@example
def unified() -> str:
    network = residual()
    scales = {name: 0.01 * (i + 1) for i, name in enumerate(network.tensors)}
    fixed, changes = unify(network, CalibrationTable(scales))
    rules = {change.name: change.rule for change in changes}
    rows = [(n, f"{scales[n]:.6g}", f"{fixed[n]:.6g}", rules.get(n, "")) for n in scales]
    return table(("layer", "before", "after", "rule"), rows)


@example
def quantized_layer() -> str:
    weights = np.array([[0.5, -0.25], [0.03, 0.02]], np.float32).reshape(2, 2, 1, 1)
    bias = np.array([0.7, -0.05], np.float32)
    step = ConvolutionStep(("conv",), "data", "conv", weights, bias)
    scales = {"data": 0.02, "conv": 0.01}
    lines = []
    for mode in QuantizationMode:
        made = quantize_convolution(step, scales, mode)
        assert made.scales is not None
        first = made.program.x1
        assert first is not None
        lines.append(f"{mode}:")
        lines.append(f"    S_w      {joined(f'{s:.6g}' for s in made.scales)}")
        lines.append(f"    weights  {joined(made.weights.reshape(-1).tolist())}")
        operands = np.asarray(first.operands).reshape(2, -1).tolist()
        lines.append(
            f"    X1       shift {first.shift}, operands {joined(map(joined, operands))}, truncate {first.truncate}"
        )
        converter = made.program.converter
        assert converter is not None
        lines.append(f"    C        scale {converter.scale}, shift {converter.shift}")
    return "\n".join(lines)
