"""Loadables as programs of registers: the firmware's writes, and the bytes that they leave."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import CpuOperation
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, TARGETS, QuantizationMode, Target
from nvdla_quant.loadable.reader import parse_loadable, read_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.network.graph import (
    LRN,
    Deconvolution,
    Eltwise,
    InnerProduct,
    Network,
    Pooling,
    ReLU,
    Sigmoid,
    Softmax,
)
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.program.build import HardwarePart, build
from nvdla_quant.registers.program.image import Bases, RegisterProgram, make_program, place_memories
from nvdla_quant.registers.program.planar import reciprocal
from nvdla_quant.registers.program.steps import Put
from nvdla_quant.registers.program.traces import cfg_files, txn_files
from nvdla_quant.registers.replay import Replay, replay
from nvdla_quant.registers.traces.files import read_trace
from tests.layered import PER_FILTER, chain, compiled, convolution, random_weights, two_branches

FIRMWARE = Path(__file__).parents[2] / "data" / "firmware_writes.json"
"""(writes, digest of them) of nvdla/sw's firmware, commit 79538ba, by golden loadable: see `digest`."""


def image_for(program: Program, seed: int = 1) -> Values:
    port = program.inputs[0]
    rng = np.random.default_rng(seed)
    if np.dtype(port.dtype) == np.float16:
        return rng.normal(0, 1, port.shape).astype(np.float16)
    return rng.integers(-128, 128, port.shape).astype(port.dtype)


def made(loadable: Loadable, target: Target) -> RegisterProgram:
    return make_program(loadable, image_for(decode(loadable, target)), target)


def compiled_for(network: Network, target: Target, mode: QuantizationMode | None) -> Loadable:
    return parse_loadable(compiled(network, target, mode, images=1)[0].data)


def played(files: Mapping[str, str], folder: Path, target: Target) -> Replay:
    for name, text in files.items():
        (folder / name).write_text(text)
    (trace,) = (folder / name for name in files if name.endswith((".cfg", ".txn")))
    return replay(read_trace(trace, register_map(target)), target)


def digest(loadable: Loadable, target: Target) -> tuple[int, str]:
    """Return how many writes there are, and the SHA-256 of lines of register, value that is kept, in hexadecimal.

    The memories stand as `make_program` puts them.
    """
    parts = build(loadable, target)
    placement = place_memories(loadable, parts, decode(loadable, target))
    writes = [
        f"{step.register} {placement.value(step.value, Bases()) & step.register.write_mask:x}\n"
        for part in parts
        if isinstance(part, HardwarePart)
        for step in part.steps
        if isinstance(step, Put)
    ]
    return len(writes), hashlib.sha256("".join(writes).encode()).hexdigest()


EXPECTED = json.loads(FIRMWARE.read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_the_writes_are_those_of_the_firmware(shared: Path, name: str) -> None:
    loadable = read_loadable(shared / "golden" / "loadables" / name / "loadable.nvdla")
    program = decode(loadable)
    if len(program.inputs) > 1:
        pytest.skip("two inputs: not written as a program")
    assert list(digest(loadable, program.target)) == EXPECTED[name]


NV_SMALL_MAP = register_map(NV_SMALL)
RNG = np.random.default_rng(5)
NETWORKS: Mapping[str, Network] = {
    "classifier": chain(
        (8, 10, 12),
        convolution(RNG, 16, 8),
        ReLU(),
        Pooling("max", (2, 2), (2, 2)),
        convolution(RNG, 12, 16),
        InnerProduct(random_weights(RNG, 10, 12 * 5 * 6), np.zeros(10, np.float32)),
        Softmax(),
    ),
    "sum": two_branches(RNG, (16, 7, 9), Eltwise("sum")),
    "tables": chain((16, 6, 5), LRN(5, 1e-2, 0.75, 1.0), convolution(RNG, 8, 16), Sigmoid()),
    "deconvolution": chain(
        (8, 5, 4), Deconvolution(random_weights(RNG, 8, 16, 2, 2), np.zeros(16, np.float32), stride=(2, 2))
    ),
}
CASES = [(network, target, PER_FILTER) for network in NETWORKS for target in TARGETS]
CASES += [(network, "nv_full", None) for network in NETWORKS]


@pytest.mark.parametrize(("network", "target", "mode"), CASES)
def test_registers_leave_the_bytes_of_the_loadable(
    network: str, target: str, mode: QuantizationMode | None, tmp_path: Path
) -> None:
    hardware = TARGETS[target]
    if network == "tables" and not hardware.has_lut:
        pytest.skip("a sigmoid needs a table")
    loadable = compiled_for(NETWORKS[network], hardware, mode)
    program = made(loadable, hardware)
    decoded = decode(loadable, hardware)
    expected = run(decoded, image_for(decoded)[None])[0]
    assert np.array_equal(program.values, expected)
    for write in (cfg_files, txn_files):
        result = played(write(program, Bases(), "made"), tmp_path, hardware)
        assert result.holds
        assert result.operations == sum(not isinstance(one, CpuOperation) for one in decoded.operations)
        assert result.checks


def test_memories_may_stand_anywhere(tmp_path: Path) -> None:
    loadable = compiled_for(NETWORKS["sum"], NV_FULL, PER_FILTER)
    image = image_for(decode(loadable, NV_FULL))
    bases = Bases(0x1_2345_6000, 0x8000_0000)
    program = make_program(loadable, image, NV_FULL, bases=bases)
    assert played(cfg_files(program, bases, "far"), tmp_path, NV_FULL).holds
    with pytest.raises(TraceError, match="pri_mem at 0x80000001: expected a multiple of 4096"):
        make_program(loadable, image, NV_FULL, bases=Bases(0x80000001))


def test_an_address_that_is_too_long_for_the_target() -> None:
    loadable = compiled_for(NETWORKS["sum"], NV_SMALL, PER_FILTER)
    with pytest.raises(TraceError, match="end behind the 32 bits of an address of nv_small"):
        make_program(loadable, image_for(decode(loadable, NV_SMALL)), NV_SMALL, bases=Bases(0xFFFFF000))


def test_a_wrong_value_is_found(tmp_path: Path) -> None:
    """The checks of a trace compare: another bias, another CRC."""
    program = made(compiled_for(NETWORKS["sum"], NV_SMALL, PER_FILTER), NV_SMALL)
    files = dict(cfg_files(program, Bases(), "made"))
    (name,) = (name for name in files if name.endswith(".cfg"))
    old = next(line for line in files[name].splitlines() if "SDP.D_CVT_SCALE" in line)
    files[name] = files[name].replace(old, old.replace("0x", "0x1"), 1)
    result = played(files, tmp_path, NV_SMALL)
    assert not result.holds


def test_cdma_may_come_first(tmp_path: Path) -> None:
    loadable = compiled_for(NETWORKS["classifier"], NV_SMALL, PER_FILTER)
    image = image_for(decode(loadable, NV_SMALL))
    enables, kept = {}, {}
    for first in (False, True):
        program = make_program(loadable, image, NV_SMALL, cdma_first=first)
        assert played(txn_files(program, Bases(), "made"), tmp_path, NV_SMALL).holds
        steps = [step for part in program.parts if isinstance(part, HardwarePart) for step in part.steps]
        names = [step.register.unit for step in steps if isinstance(step, Put) and step.register.name == "D_OP_ENABLE"]
        config = NV_SMALL_MAP.register("CSC", "D_MISC_CFG")
        values = [step.value for step in steps if isinstance(step, Put) and step.register == config]
        kept[first] = [config.field("SKIP_WEIGHT_RLS").of(int(value)) for value in values]  # type: ignore[arg-type]
        enables[first] = [name for name in names if name in ("CSC", "CDMA")]
    assert enables[False] == ["CSC", "CDMA"] * 3
    assert enables[True] == ["CDMA", "CSC"] * 3
    assert (kept[False], kept[True]) == ([0] * 3, [1] * 3)


@pytest.mark.parametrize(
    ("size", "integer", "half"),
    [
        (1, 0x10000, 0x7C00),
        (2, 0x8000, 0x7800),
        (3, 0x5555, 0x7555),
        (4, 0x4000, 0x7400),
        (5, 0x3333, 0x7266),
        (6, 0x2AAA, 0x7155),
        (7, 0x2492, 0x7092),
        (8, 0x2000, 0x7000),
    ],
)
def test_reciprocals(size: int, integer: int, half: int) -> None:
    """nvdla/sw ``kmd/firmware/pdp.c``, ``recip_kernel_size``."""
    assert (reciprocal(size, 0), reciprocal(size, 2)) == (integer, half)


def test_what_no_trace_can_hold() -> None:
    """An image of another shape, of another type."""
    loadable = compiled_for(NETWORKS["sum"], NV_SMALL, PER_FILTER)
    image = image_for(decode(loadable, NV_SMALL))
    for wrong in (image[:, 1:], image.astype(np.int16)):
        with pytest.raises(TraceError, match=r"image: int.* of shape .*, expected int8 of shape \(16, 7, 9\)"):
            make_program(loadable, wrong, NV_SMALL)
