"""Numbers of integers.md, convolution.md, sdp.md and tables.md."""

import numpy as np

from nvdla_quant.compiler.numbers.fixed import factorise
from nvdla_quant.emulator.integer.lut import look_up
from nvdla_quant.emulator.integer.rounding import shift_left, shift_right
from nvdla_quant.emulator.integer.sdp import constant_operands, integer_chain
from nvdla_quant.emulator.integer.winograd import INPUT, OUTPUT
from nvdla_quant.emulator.operations import (
    Converter,
    Lut,
    Operand,
    SdpUnit,
    TableHalf,
)
from nvdla_quant.emulator.pixels import _convert, _low_signed
from nvdla_quant.hardware.targets import TARGETS, Precision
from nvdla_quant.loadable.structs import SdpAlu
from tests.hardware.examples import example, ints, table


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
