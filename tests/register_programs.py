"""Write register programs: descriptors into registers, and whole traces that say what they expect.

usage: python -m tests.register_programs        (writes tests/data/traces again)

What the traces expect is computed by the emulator from operations that are made here, never from registers.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.operations import Converter, Cube, Operand, OperandArray, SdpUnit
from nvdla_quant.emulator.run import run
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Target
from nvdla_quant.loadable.structs import PoolMode, SdpAlu
from nvdla_quant.loadable.tasks import Window
from nvdla_quant.registers import places as tables
from nvdla_quant.registers.map import RegisterMap, register_map
from nvdla_quant.registers.program.encode import Values, addressed, encoded, puts
from nvdla_quant.registers.traces.cfg import format_cfg
from nvdla_quant.registers.traces.payload import format_chunks, format_plain
from nvdla_quant.registers.traces.statements import (
    PRIMARY,
    CheckCrc,
    CheckFile,
    Expect,
    Fill,
    Load,
    OnInterrupt,
    Statement,
    WaitInterrupt,
    Write,
)
from nvdla_quant.registers.traces.txn import format_txn
from tests.emulated import OPERAND, conv_program, packed_cube, pool_program, sdp_program

FOLDER = Path(__file__).parent / "data" / "traces"
BASES = {"source": 0x80000000, "weights": 0x80010000, "operands": 0x80020000, "between": 0x80030000}
RESULT = 0x80040000


def writes(registers: RegisterMap, values: Values) -> list[Statement]:
    """Return the writes of all registers that `values` name, each once."""
    order = dict.fromkeys(" ".join(name.split(".")[:2]) for name in values)
    return [Write(0, put.register, put.value) for put in puts(registers, ";".join(order), values)]


def enables(registers: RegisterMap, *units: str) -> list[Statement]:
    return [Write(0, registers.register(unit, "D_OP_ENABLE"), 1) for unit in units]


def pointers(registers: RegisterMap, group: int, *units: str) -> list[Statement]:
    return [Write(0, registers.register(unit, "S_POINTER"), group) for unit in units]


def side(name: str, cube: Cube) -> dict[str, int]:
    """Return the fields of a cube in a descriptor."""
    fields = {"width": cube.width, "height": cube.height, "channel": cube.channels}
    fields |= {"line_stride": cube.line_stride, "surf_stride": cube.surface_stride}
    return {f"{name}.{field}": value for field, value in fields.items()}


BYPASSED = {
    f"SDP.D_DP_{unit}_CFG.{unit}_{part}": 1
    for unit in ("BS", "BN", "EW")
    for part in ("BYPASS", "ALU_BYPASS", "MUL_BYPASS")
}
NOTHING_READ = {f"SDP_RDMA.D_{reader}_CFG.{reader}_DISABLE": 1 for reader in ("BRDMA", "NRDMA", "ERDMA")}


def sdp_values(
    destination: Cube, address: int, converter: Converter, flying: bool, source: tuple[Cube, int] | None
) -> Values:
    """Return an SDP operation that only converts, of a convolution or of a cube in memory."""
    fields = {"batch_num": 1, "out_cvt.offset": converter.offset, "out_cvt.scale": converter.scale}
    fields["out_cvt.truncate"] = converter.shift
    values = encoded(tables.SDP, fields) | encoded(tables.SDP_SURFACE, side("dst_data", destination))
    values |= addressed("SDP.D_DST_BASE_ADDR_HIGH", "SDP.D_DST_BASE_ADDR_LOW", address)
    values |= {"SDP.D_DST_DMA_CFG": 1, "SDP.D_FEATURE_MODE_CFG.FLYING_MODE": int(flying)} | BYPASSED | NOTHING_READ
    values |= {"SDP_RDMA.D_FEATURE_MODE_CFG.IN_PRECISION": 0, "SDP_RDMA.D_FEATURE_MODE_CFG.FLYING_MODE": int(flying)}
    if source is not None:
        values |= encoded(tables.SDP_SOURCE, side("src_data", source[0]))
        values |= addressed("SDP_RDMA.D_SRC_BASE_ADDR_HIGH", "SDP_RDMA.D_SRC_BASE_ADDR_LOW", source[1])
        values |= {"SDP_RDMA.D_SRC_DMA_CFG": 1}
    return values


def with_bias(values: Values, address: int) -> Values:
    """Return an SDP operation whose X1 adds two bytes for each channel, from memory, and clamps at zero."""
    return values | {
        "SDP.D_DP_BS_CFG.BS_BYPASS": 0,
        "SDP.D_DP_BS_CFG.BS_ALU_BYPASS": 0,
        "SDP.D_DP_BS_CFG.BS_ALU_ALGO": SdpAlu.SUM,
        "SDP.D_DP_BS_CFG.BS_RELU_BYPASS": 0,
        "SDP.D_DP_BS_ALU_CFG.BS_ALU_SRC": 1,
        "SDP_RDMA.D_BRDMA_CFG.BRDMA_DISABLE": 0,
        "SDP_RDMA.D_BRDMA_CFG.BRDMA_DATA_USE": 1,
        "SDP_RDMA.D_BRDMA_CFG.BRDMA_DATA_SIZE": 1,
        "SDP_RDMA.D_BRDMA_CFG.BRDMA_RAM_TYPE": 1,
        **addressed("SDP_RDMA.D_BS_BASE_ADDR_HIGH", "SDP_RDMA.D_BS_BASE_ADDR_LOW", address),
    }


def conv_values(
    source: Cube, address: int, weights: tuple[int, int], kernels: NDArray[np.int8], output: Cube, pad: int
) -> Values:
    """Return a convolution of features; `weights` are (address, bytes), `kernels` (outputs, height, width, inputs)."""
    _, height, width, channels = kernels.shape
    fields = {
        "entry_per_slice": -(-source.channels // 8) * source.width,
        "batch": 1,
        "data_bank": 4,
        "weight_bank": 4,
        "fetch_grain": 1,
        "release": source.height,
        "input_width_csc": source.width,
        "input_height_csc": source.height,
        "input_channel_csc": channels,
        "kernel_width_csc": width,
        "kernel_height_csc": height,
        "kernel_channel_csc": channels,
        "input_width_cmac": output.width,
        "input_height_cmac": output.height,
        "bytes_per_kernel": height * width * channels,
        "conv_stride_x": 1,
        "conv_stride_y": 1,
        "dilation_x": 1,
        "dilation_y": 1,
        **dict.fromkeys(("pad_x_left", "pad_x_right", "pad_y_top", "pad_y_bottom"), pad),
    }
    surface = side("src_data", source) | side("dst_data", output) | {"weight_data.size": weights[1]}
    values = encoded(tables.CONV, fields) | encoded(tables.DIRECT, fields) | encoded(tables.CONV_SURFACE, surface)
    values |= addressed("CDMA.D_DAIN_ADDR_HIGH_0", "CDMA.D_DAIN_ADDR_LOW_0", address)
    values |= addressed("CDMA.D_WEIGHT_ADDR_HIGH", "CDMA.D_WEIGHT_ADDR_LOW", weights[0])
    return values | {
        "CDMA.D_DAIN_RAM_TYPE": 1,
        "CDMA.D_WEIGHT_RAM_TYPE": 1,
        "CSC.D_ATOMICS": output.width * output.height - 1,
    }


def pool_values(source: Cube, output: Cube, address: int, kernel: int, mode: PoolMode) -> Values:
    """Return a pooling of what the SDP hands over, in steps of its window."""
    fields = {"pool_mode": mode, "split_num": 1, "pool_width": kernel - 1, "pool_height": kernel - 1}
    fields |= {"stride_x": kernel, "stride_y": kernel, "precision": 0}
    values = encoded(tables.PDP, fields)
    values |= encoded(tables.PDP_SURFACE, side("src_data", source) | side("dst_data", output))
    values |= addressed("PDP.D_DST_BASE_ADDR_HIGH", "PDP.D_DST_BASE_ADDR_LOW", address)
    reciprocals = dict.fromkeys(("PDP.D_RECIP_KERNEL_WIDTH", "PDP.D_RECIP_KERNEL_HEIGHT"), 0x10000 // kernel)
    return values | {"PDP.D_DST_RAM_CFG": 1} | reciprocals


CONVOLUTION = ("CDMA", "CSC", "CMAC_A", "CMAC_B", "CACC")


def image_of(cube: Cube, values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return the bytes of a packed cube that holds `values` (c, h, w); what stands behind the last channel is 0."""
    atoms = np.zeros((cube.surfaces * cube.atom, cube.height, cube.width), values.dtype)
    atoms[: cube.channels] = values
    stood = atoms.reshape(cube.surfaces, cube.atom, cube.height, cube.width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(stood).view(np.uint8).reshape(-1)


def crc(content: NDArray[np.uint8]) -> int:
    return zlib.crc32(content.tobytes())


@dataclass(frozen=True)
class Made:
    """A trace with its files."""

    name: str
    text: str
    files: Mapping[str, str]


def made_cfg(name: str, statements: Sequence[Statement], images: Mapping[int, NDArray[np.uint8]]) -> Made:
    """Return a ``.cfg`` that loads `images` by address before `statements`."""
    files = {f"{name}_{address:x}.dat": format_chunks(content) for address, content in images.items()}
    loads = [Load(0, PRIMARY, address, f"{name}_{address:x}.dat") for address in images]
    return Made(f"{name}.cfg", format_cfg([*loads, *statements]), files)


def expecting(
    source: str, event: str, result: NDArray[np.uint8], address: int = RESULT, group: int = 0
) -> list[Statement]:
    """Return the statements that compare what an operation leaves."""
    return [OnInterrupt(0, source, group, event), CheckCrc(0, event, PRIMARY, address, len(result), crc(result))]


def run_one(program: Program, values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return the bytes that a program of one operation writes for one image."""
    result = run(program, values[None])[0]
    return image_of(program.outputs[0].cube, result)


BIAS_UNIT = SdpUnit(
    name="x1",
    alu=SdpAlu.SUM,
    alu_operand=Operand(array=OperandArray(Window(OPERAND, 0, 0), np.dtype(np.int16), 0, 1)),
    mul_operand=None,
    interleaved=False,
    alu_shift=0,
    truncate=0,
    relu=True,
    prelu=False,
)
COPY = Converter(0, 1, 0)


def bias_of(channels: int) -> SdpUnit:
    window = Window(OPERAND, 0, 2 * channels)
    return replace(BIAS_UNIT, alu_operand=Operand(array=OperandArray(window, np.dtype(np.int16), 0, 1)))


def biased() -> Made:
    """An SDP operation: a bias for each of 16 channels, ReLU, and a converter."""
    rng = np.random.default_rng(1)
    shape, registers = (16, 3, 5), register_map(NV_SMALL)
    values = rng.integers(-128, 128, shape, np.int8)
    bias = rng.integers(-200, 200, 16).astype(np.int16)
    converter = Converter(3, 11, 4)
    program = sdp_program(shape, (bias_of(16),), converter, bias.view(np.uint8))
    cube, result = packed_cube(0, shape, 8), run_one(program, values)
    registers_of = with_bias(sdp_values(cube, RESULT, converter, False, (cube, BASES["source"])), BASES["operands"])
    statements = [
        Fill(0, PRIMARY, RESULT, len(result)),
        *pointers(registers, 0, "SDP", "SDP_RDMA"),
        *writes(registers, registers_of),
        *enables(registers, "SDP_RDMA", "SDP"),
        *expecting("SDP", "done", result),
    ]
    images = {BASES["source"]: image_of(cube, values), BASES["operands"]: bias.view(np.uint8)}
    return made_cfg("biased", statements, images)


def twice() -> Made:
    """Two convolutions in both groups of registers, enabled at once, the second one of what the first one writes."""
    rng = np.random.default_rng(2)
    registers = register_map(NV_SMALL)
    source = packed_cube(0, (8, 5, 6), 8)
    values = rng.integers(-128, 128, source.shape, np.int8)
    statements: list[Statement] = []
    images = {BASES["source"]: image_of(source, values)}
    places_of = (BASES["source"], BASES["between"], RESULT)
    units = (*CONVOLUTION, "SDP", "SDP_RDMA")
    checks: list[Statement] = []
    for group in range(2):
        kernels = rng.integers(-20, 20, (8, 3, 3, 8), np.int8)
        # Groups of 8 kernels of 8 channels: row, column, kernel, channel.
        packed = kernels.transpose(1, 2, 0, 3).reshape(-1).view(np.uint8)
        converter = Converter(0, 1 + group, 8)
        form = (5, 6), (1, 1), (1, 1), (1, 1), 0
        program = conv_program(source, kernels, *form, packed, NV_SMALL, (), converter)
        values = run(program, values[None])[0]
        at = BASES["weights"] + group * 0x8000
        images[at] = packed
        fields = conv_values(source, places_of[group], (at, len(packed)), kernels, source, 1)
        fields |= sdp_values(source, places_of[group + 1], converter, True, None)
        statements += [*pointers(registers, group, *units), *writes(registers, fields)]
        statements += enables(registers, "SDP", "CACC", "CMAC_A", "CMAC_B", "CSC", "CDMA")
        checks += expecting("SDP", f"layer{group}", image_of(source, values), places_of[group + 1], group)
    return made_cfg("twice", [*statements, *checks], images)


def pooled() -> Made:
    """An SDP operation that hands over to a pooling."""
    rng = np.random.default_rng(3)
    registers = register_map(NV_SMALL)
    source, output = packed_cube(0, (8, 4, 6), 8), packed_cube(1, (8, 2, 3), 8)
    values = rng.integers(-128, 128, source.shape, np.int8)
    program = pool_program(source.shape, (2, 3), PoolMode.AVERAGE, (2, 2), (2, 2), (0, 0), (0,) * 7, NV_SMALL)
    result = run_one(program, values)
    fields = sdp_values(source, 0, COPY, False, (source, BASES["source"])) | {"SDP.D_FEATURE_MODE_CFG.OUTPUT_DST": 1}
    fields |= pool_values(source, output, RESULT, 2, PoolMode.AVERAGE)
    statements = [
        *writes(registers, fields),
        *enables(registers, "PDP", "SDP", "SDP_RDMA"),
        *expecting("PDP", "done", result),
    ]
    return made_cfg("pooled", statements, {BASES["source"]: image_of(source, values)})


def copied() -> Made:
    """For nv_full: a copy by BDMA, polled, and an SDP operation in int16 on it, by interrupt."""
    rng = np.random.default_rng(4)
    registers = register_map(NV_FULL)
    cube = packed_cube(0, (16, 2, 3), 16, 2)
    values = rng.integers(-(1 << 15), 1 << 15, cube.shape, np.int16)
    content = image_of(cube, values)
    copy = addressed("BDMA.CFG_SRC_ADDR_HIGH", "BDMA.CFG_SRC_ADDR_LOW", BASES["source"])
    copy |= addressed("BDMA.CFG_DST_ADDR_HIGH", "BDMA.CFG_DST_ADDR_LOW", BASES["between"])
    copy |= {"BDMA.CFG_LINE": len(content) // 32 - 1, "BDMA.CFG_CMD.SRC_RAM_TYPE": 1, "BDMA.CFG_CMD.DST_RAM_TYPE": 1}
    copy |= {f"BDMA.CFG_{end}_{what}": len(content) for end in ("SRC", "DST") for what in ("LINE", "SURF")}
    fields = sdp_values(cube, RESULT, COPY, False, (cube, BASES["between"]))
    fields |= {"SDP.D_DATA_FORMAT.PROC_PRECISION": 1, "SDP.D_DATA_FORMAT.OUT_PRECISION": 1}
    fields |= {"SDP_RDMA.D_FEATURE_MODE_CFG.IN_PRECISION": 1}
    status = registers.register("GLB", "S_INTR_STATUS")
    statements: list[Statement] = [
        Load(0, PRIMARY, BASES["source"], "copied_source.dat", len(content)),
        *writes(registers, copy),
        Write(0, registers.register("BDMA", "CFG_OP"), 1),
        Write(0, registers.register("BDMA", "CFG_LAUNCH0"), 1),
        Expect(0, status, 1 << 6, 1 << 6, wait=True),
        Write(0, status, 0xFFFFFFFF),
        *writes(registers, fields),
        *enables(registers, "SDP_RDMA", "SDP"),
        WaitInterrupt(0),
        CheckFile(0, None, PRIMARY, RESULT, len(content), "copied_result.dat"),
    ]
    # The converter is the identity, and 17 bits hold all of int16.
    files = {"copied_source.dat": format_plain(content), "copied_result.dat": format_plain(content)}
    return Made("copied.txn", format_txn(statements, registers), files)


MADE: Mapping[str, tuple[Callable[[], Made], Target]] = {
    "biased": (biased, NV_SMALL),
    "twice": (twice, NV_SMALL),
    "pooled": (pooled, NV_SMALL),
    "copied": (copied, NV_FULL),
}


def files_of(made: Made) -> Iterator[tuple[str, str]]:
    """Yield the names and contents of a trace's files."""
    yield made.name, made.text
    yield from made.files.items()


def main() -> None:
    """Write all traces."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for make, _ in MADE.values():
        for name, text in files_of(make()):
            (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
