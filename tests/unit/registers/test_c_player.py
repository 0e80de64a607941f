"""Programs as C: they compile without a warning, and on the model of the hardware they leave the right bytes."""

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, TARGETS, QuantizationMode, Target
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.registers.device import Device
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.memory import TraceMemory
from nvdla_quant.registers.program.c import SOURCES, TABLES, c_files, table_bytes
from nvdla_quant.registers.program.image import RegisterProgram, make_program
from tests.layered import PER_FILTER
from tests.unit.registers.test_program import NETWORKS, compiled_for, image_for

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2")
BOARD = ("-DNVDLA_REGISTERS=0x10040000", "-DNVDLA_DRAM=0x90000000", "-DNVDLA_SRAM=0")
RISCV = "riscv64-unknown-elf-gcc"
MODEL = """
#include "nvdla_program.h"
uint32_t (*model_read)(uint32_t word);
void (*model_write)(uint32_t word, uint32_t value);
"""
REACHED_BY = (
    "-DNVDLA_READ(device,word)=((void)(device),model_read(word))",
    "-DNVDLA_WRITE(device,word,value)=((void)(device),model_write((word),(value)))",
    "-include",
    "model.h",
)
BUS = (0x1_4000_0000, 0x9000_0000)
"""Where NVDLA sees the memories: the first one behind 32 bits, where the target has more."""


class Span(ctypes.Structure):
    _fields_ = (("memory", ctypes.c_uint8), ("offset", ctypes.c_uint32), ("size", ctypes.c_uint32))


class Part(ctypes.Structure):
    _fields_ = (("steps", ctypes.c_void_p), ("count", ctypes.c_uint32), ("cpu", ctypes.c_void_p))


class ProgramTable(ctypes.Structure):
    _fields_ = (
        ("target", ctypes.c_char_p),
        ("parts", ctypes.POINTER(Part)),
        ("part_count", ctypes.c_uint32),
        ("contents", ctypes.c_void_p),
        ("content_count", ctypes.c_uint32),
        ("results", ctypes.c_void_p),
        ("result_count", ctypes.c_uint32),
        ("sizes", ctypes.c_uint32 * 2),
        ("input", Span),
        ("output", Span),
    )


class DeviceTable(ctypes.Structure):
    _fields_ = (
        ("registers", ctypes.c_void_p),
        ("memory", ctypes.c_void_p * 2),
        ("bus", ctypes.c_uint64 * 2),
        ("patience", ctypes.c_uint32),
        ("stopped_at", ctypes.c_uint32),
    )


READ = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)
WRITE = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)


def written(files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def compile_c(compiler: str, *arguments: str, folder: Path) -> None:
    result = subprocess.run([compiler, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


class Board:
    """A player that runs on the model of the hardware, whose memory is that of the processor."""

    def __init__(self, program: RegisterProgram, folder: Path) -> None:
        written(c_files(program, "test"), folder)
        (folder / "model.h").write_text(
            "#include <stdint.h>\nextern uint32_t (*model_read)(uint32_t);\n"
            "extern void (*model_write)(uint32_t, uint32_t);\n"
        )
        (folder / "model.c").write_text(MODEL)
        sources = ("model.c", TABLES, "nvdla_player.c", "nvdla_softmax.c")
        compile_c("cc", *STRICT, *REACHED_BY, "-shared", "-fPIC", "-o", "player.so", *sources, "-lm", folder=folder)
        self._library = ctypes.CDLL(str(folder / "player.so"))
        self.table = ProgramTable.in_dll(self._library, "nvdla_program")
        self._registers = register_map(program.target)
        self.bus = BUS if program.target.address_bits > 32 else (0x4000_0000, BUS[1])
        self._trace_memory = TraceMemory()
        self._model = Device(program.target, self._trace_memory)
        self.memory = tuple(np.full(max(size, 1), 0xA5, np.uint8) for size in self.table.sizes)
        pointers = (ctypes.c_void_p * 2)(*(memory.ctypes.data for memory in self.memory))
        self.device = DeviceTable(None, pointers, (ctypes.c_uint64 * 2)(*self.bus), 1000, 0)
        self._callbacks = READ(self._read), WRITE(self._write)
        for name, callback in zip(("model_read", "model_write"), self._callbacks, strict=True):
            ctypes.c_void_p.in_dll(self._library, name).value = ctypes.cast(callback, ctypes.c_void_p).value
        self.problems: list[Exception] = []

    def _write(self, word: int, value: int) -> None:
        try:
            self._model.write(self._registers.at(4 * word), value, 0)
        except Exception as error:
            self.problems.append(error)

    def _read(self, word: int) -> int:
        """Let time pass until the next interrupt, with the memories as the processor left them."""
        try:
            register = self._registers.at(4 * word)
            found = self._model.read(register)
            if not found:
                for number, memory in enumerate(self.memory):
                    self._trace_memory.write(number, self.bus[number], memory)
                self._model.advance()
                for number, memory in enumerate(self.memory):
                    memory[:] = self._trace_memory.read(number, self.bus[number], len(memory))[0]
                found = self._model.read(register)
        except Exception as error:
            self.problems.append(error)
            return 0
        return found

    def call(self, name: str, *arguments: object) -> int:
        result = int(getattr(self._library, name)(*arguments))
        assert not self.problems, self.problems[0]
        return result

    def play(self) -> int:
        """Do what main.c does, and return what it returns."""
        table, device = ctypes.byref(self.table), ctypes.byref(self.device)
        self._library.nvdla_load(table, device)
        for number in range(self.table.part_count):
            part = self.table.parts[number]
            if part.cpu:
                if self.call("nvdla_softmax", ctypes.c_void_p(part.cpu), device):
                    return 3
            elif self.call("nvdla_run", ctypes.byref(part), device):
                return 2
        return 1 if self.call("nvdla_check", table, device) else 0

    def output(self) -> bytes:
        span = self.table.output
        return bytes(self.memory[span.memory][span.offset : span.offset + span.size])


@pytest.fixture
def compiler() -> str:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) is installed")
    return "cc"


def made(network: str, target: Target, mode: QuantizationMode | None) -> tuple[Loadable, RegisterProgram]:
    loadable = compiled_for(NETWORKS[network], target, mode)
    return loadable, make_program(loadable, image_for(decode(loadable, target)), target)


CASES = [
    *((network, target, PER_FILTER) for network, target in zip(sorted(NETWORKS), ("nv_full",) * 4, strict=True)),
    *(("classifier", target, PER_FILTER) for target in TARGETS if target != "nv_full"),
    ("classifier", "nv_full", None),
]


@pytest.mark.parametrize(("network", "target", "mode"), CASES)
def test_the_player_leaves_the_bytes_of_the_loadable(
    compiler: str, network: str, target: str, mode: QuantizationMode | None, tmp_path: Path
) -> None:
    loadable, program = made(network, TARGETS[target], mode)
    board = Board(program, tmp_path)
    assert board.play() == 0
    decoded = decode(loadable, TARGETS[target])
    expected = run(decoded, image_for(decoded)[None])[0]
    port = decoded.outputs[0]
    found = np.frombuffer(board.output(), port.dtype)
    if port.shape[1:] == (1, 1):
        found = found[: port.shape[0]].reshape(port.shape)
        # The C library's expf may round the last bit of a half otherwise.
        half = np.spacing(expected) if port.dtype == np.float16 else 0
        assert np.abs(found.astype(np.float64) - expected.astype(np.float64)).max() <= np.max(half)


def test_another_image_of_the_same_program(compiler: str, tmp_path: Path) -> None:
    """The input's place is where the caller puts an image; the check then says that the results are others."""
    loadable, program = made("sum", NV_SMALL, PER_FILTER)
    board = Board(program, tmp_path)
    table, device = ctypes.byref(board.table), ctypes.byref(board.device)
    board._library.nvdla_load(table, device)
    image = image_for(decode(loadable, NV_SMALL), seed=2)
    other = make_program(loadable, image, NV_SMALL)
    span = board.table.input
    content = other.contents[decode(loadable, NV_SMALL).inputs[0].cube.memory]
    board.memory[span.memory][span.offset : span.offset + span.size] = content[: span.size]
    assert board.call("nvdla_run", ctypes.byref(board.table.parts[0]), device) == 0
    assert board.call("nvdla_check", table, device) == 1
    assert board.output() == other.results[0].expected.tobytes()


def test_a_register_that_never_changes_is_given_up(compiler: str, tmp_path: Path) -> None:
    _, program = made("sum", NV_SMALL, PER_FILTER)
    board = Board(program, tmp_path)
    board._model.advance = lambda: None  # type: ignore[method-assign]
    board._model.settle()
    assert board.play() == 2
    steps = [step for part in program.parts for step in getattr(part, "steps", ()) if type(step).__name__ != "Remark"]
    assert type(steps[board.device.stopped_at]).__name__ == "AwaitInterrupt"


@pytest.mark.parametrize("network", ["classifier", "sum"])
def test_the_example_compiles(compiler: str, network: str, tmp_path: Path) -> None:
    _, program = made(network, NV_FULL, PER_FILTER)
    written(c_files(program, "test"), tmp_path)
    sources = [file for file in (*SOURCES, TABLES) if file.endswith(".c")]
    compile_c(compiler, *STRICT, *BOARD, "-o", "example", *sources, "-lm", folder=tmp_path)


@pytest.mark.skipif(shutil.which(RISCV) is None, reason=f"{RISCV} is not installed")
@pytest.mark.parametrize("source", [TABLES, "nvdla_player.c"])
def test_it_compiles_for_risc_v(source: str, tmp_path: Path) -> None:
    """Without a C library: the compiler's own headers are enough."""
    _, program = made("classifier", NV_SMALL, PER_FILTER)
    written(c_files(program, "test"), tmp_path)
    machine = ("-march=rv32imac", "-mabi=ilp32", "-ffreestanding")
    compile_c(RISCV, *STRICT, *machine, "-c", source, folder=tmp_path)


def test_the_size_of_the_steps(compiler: str, tmp_path: Path) -> None:
    _, program = made("sum", NV_SMALL, PER_FILTER)
    assert table_bytes(program) == 8 * Board(program, tmp_path).table.parts[0].count


LENETS: Sequence[str] = ("lenet-nv-small-int8-perfilter", "lenet-nv-full-fp16", "lenet-nv-large-int8-perfilter")


@pytest.mark.parametrize("name", LENETS)
def test_lenet(compiler: str, shared: Path, name: str, tmp_path: Path) -> None:
    """What NVIDIA's compiler made, and NVIDIA's C-model computed of it."""
    folder = shared / "golden" / "loadables" / name
    loadable = read_loadable(folder / "loadable.nvdla")
    with np.load(folder / "vectors.npz") as vectors:
        image, expected = vectors["input"][0], vectors["output"][0]
    program = make_program(loadable, image)
    assert np.array_equal(program.values, expected)
    board = Board(program, tmp_path)
    assert board.play() == 0
    found = np.frombuffer(board.output(), expected.dtype)[: len(expected)]
    assert np.array_equal(found, expected.reshape(-1))
