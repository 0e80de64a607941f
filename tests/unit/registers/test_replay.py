"""Traces on the model of the hardware: those that are right, and every way to be wrong."""

import gc
import json
import re
import shutil
import sys
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from nvdla_quant.cli import main
from nvdla_quant.emulator.decode.program import Limits
from nvdla_quant.emulator.operations import Operation
from nvdla_quant.errors import MissingDataError, TraceError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, TARGETS, Target
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.memory import TraceMemory
from nvdla_quant.registers.replay import Replay, replay
from nvdla_quant.registers.traces.files import read_trace
from tests.register_programs import FOLDER, MADE, files_of

SUFFIX = {name: Path(make().name).suffix for name, (make, _) in MADE.items()}


def play(path: Path, target: Target) -> Replay:
    return replay(read_trace(path, register_map(target)), target)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a trace with changes: texts that stand in it, and what replaces them."""

    def change(name: str, *changes: tuple[str, str], suffix: str = ".cfg") -> Path:
        for path in FOLDER.glob(f"{name}*"):
            shutil.copy(path, tmp_path)
        path = tmp_path / f"{name}{suffix}"
        text = path.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        return path

    return change


def refusal(path: Path, target: Target = NV_SMALL) -> str:
    with pytest.raises(TraceError) as caught:
        play(path, target)
    return str(caught.value).removeprefix(str(path.parent) + "/")


def line_of(path: Path, text: str) -> int:
    """Return the line, of those that hold `text`, that comes last."""
    return max(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize("name", MADE)
def test_the_traces_are_current(name: str) -> None:
    """``python -m tests.register_programs`` writes them."""
    for file, text in files_of(MADE[name][0]()):
        assert (FOLDER / file).read_text() == text


@pytest.mark.parametrize("name", MADE)
def test_every_check_holds(name: str) -> None:
    result = play(FOLDER / f"{name}{SUFFIX[name]}", MADE[name][1])
    assert result.checks
    assert result.holds, result.checks


def test_both_groups_run_in_turn() -> None:
    seen: list[Operation] = []
    trace = read_trace(FOLDER / "twice.cfg", register_map(NV_SMALL))
    result = replay(trace, NV_SMALL, on_operation=seen.append)
    assert [operation.index for operation in seen] == [1, 3]
    assert result.operations == 2
    assert seen[0].destination == seen[1].source.source  # type: ignore[union-attr]


def test_a_wrong_result_is_a_difference(changed: Callable[..., Path]) -> None:
    path = changed("biased")
    text = path.read_text()
    path.write_text(re.sub(r"0x[0-9a-f]+\);\n$", "0x12345678);\n", text))
    result = play(path, NV_SMALL)
    assert not result.holds
    (check,) = result.checks
    assert (check.line, check.kind, check.expected) == (line_of(path, "check_crc"), "crc", "0x12345678")
    assert check.found in text


def test_a_register_that_holds_something_else_is_a_difference(changed: Callable[..., Path]) -> None:
    read = "reg_read_check(NVDLA_PDP.D_DATA_FORMAT_0, 0x1);"
    path = changed("pooled", ("intr_notify", f"{read}\nintr_notify"))
    (check,) = (check for check in play(path, NV_SMALL).checks if not check.holds)
    assert (check.kind, check.place, check.found) == ("register", "PDP.D_DATA_FORMAT & 0xffffffff", "0x0")


def test_a_dump_without_its_file_is_no_difference(changed: Callable[..., Path]) -> None:
    path = changed("copied", ("copied_result.dat", "other.dat"), suffix=".txn")
    result = play(path, NV_FULL)
    assert result.holds
    assert result.dumps[0].file == "other.dat"
    assert [check.kind for check in result.checks if check.kind == "dump"] == ["dump"]


def test_streams_wait_for_each_other(changed: Callable[..., Path]) -> None:
    """A stream that waits lets the others go on."""
    enable = "reg_write(NVDLA_SDP_RDMA.D_OP_ENABLE_0, 0x1);"
    waits = f"sync_wait(NVDLA_SDP_RDMA, enabled);\n{enable}"
    told = "reg_write(NVDLA_SDP.D_OP_ENABLE_0, 0x1);"
    path = changed("biased", (enable, waits), (told, f"{told}\nsync_notify(NVDLA_SDP, enabled);"))
    assert play(path, NV_SMALL).holds


def test_a_poll_lets_time_pass(changed: Callable[..., Path]) -> None:
    """Group 0 of the PDP is free again once its interrupt came."""
    again = "poll_reg_equal(NVDLA_PDP.S_STATUS_0, 0x0);\nreg_write(NVDLA_PDP.D_DATA_FORMAT_0, 0x1);\nintr_notify"
    assert play(changed("pooled", ("intr_notify", again)), NV_SMALL).holds


@pytest.mark.parametrize(
    ("name", "old", "new", "line", "message"),
    [
        (
            "biased",
            "intr_notify",
            "reg_write(NVDLA_SDP.D_OP_ENABLE_0, 0x1);\nintr_notify",
            "D_OP_ENABLE_0",
            "SDP.D_OP_ENABLE: written while group 0, enabled in line",
        ),
        (
            "biased",
            "reg_write(NVDLA_SDP_RDMA.D_OP_ENABLE_0, 0x1);",
            "",
            "SDP.D_OP_ENABLE_0",
            "SDP.D_OP_ENABLE: SDP enabled without SDP_RDMA; it would hang",
        ),
        (
            "twice",
            "reg_write(NVDLA_CMAC_B.D_OP_ENABLE_0, 0x1);",
            "",
            "CDMA.D_OP_ENABLE_0",
            "enabled without CMAC_B; it would hang",
        ),
        (
            "pooled",
            "reg_write(NVDLA_PDP.D_OP_ENABLE_0, 0x1);",
            "",
            "SDP_RDMA.D_OP_ENABLE_0",
            "SDP, SDP_RDMA enabled without PDP; it would hang",
        ),
        (
            "pooled",
            "reg_write(NVDLA_PDP.D_OPERATION_MODE_CFG_0, 0x0);",
            "reg_write(NVDLA_PDP.D_OPERATION_MODE_CFG_0, 0x10);",
            "SDP_RDMA.D_OP_ENABLE_0",
            "PDP.D_OPERATION_MODE_CFG takes the source from memory",
        ),
        (
            "pooled",
            "reg_write(NVDLA_PDP.D_OP_ENABLE_0",
            "reg_write(NVDLA_PDP.S_POINTER_0, 1);\nreg_write(NVDLA_PDP.D_OP_ENABLE_0",
            "PDP.D_OP_ENABLE_0",
            "PDP.D_OP_ENABLE: group 1 is enabled, and it is group 0's turn; it would hang",
        ),
        (
            "biased",
            "intr_notify(SDP_0",
            "intr_notify(CDP_0",
            "intr_notify",
            "waits for an interrupt of CDP_0, which nothing raises",
        ),
        ("biased", "check_crc(done", "check_crc(other", "check_crc", "waits for other, which never happens"),
        (
            "biased",
            "intr_notify",
            "sync_wait(NVDLA_PDP, never);\nintr_notify",
            "sync_wait",
            "PDP waits for never, which never happens; it would hang",
        ),
        (
            "biased",
            "intr_notify",
            "poll_reg_equal(NVDLA_PDP.S_STATUS_0, 0x1);\nintr_notify",
            "poll_reg_equal",
            "waits for PDP.S_STATUS to be 0x1, which stays 0x0",
        ),
        (
            "biased",
            'mem_load(pri_mem, 0x80000000, "biased_80000000.dat");',
            "",
            "SDP.D_OP_ENABLE_0",
            "reads byte 0x80000000 of pri_mem, which no statement and no operation has set",
        ),
        (
            "twice",
            "D_BANK_0, 0x30003",
            "D_BANK_0, 0x3f001f",
            "CDMA.D_OP_ENABLE_0",
            "data_bank and weight_bank",
        ),
        (
            "twice",
            "reg_write(NVDLA_CSC.D_BANK_0, 0x30003)",
            "reg_write(NVDLA_CSC.D_BANK_0, 0x20003)",
            "CDMA.D_OP_ENABLE_0",
            "CSC.D_BANK.WEIGHT_BANK means 3, expected 4 as in CDMA.D_BANK.WEIGHT_BANK: both must agree",
        ),
        (
            "biased",
            "D_DST_BASE_ADDR_LOW_0, 0x80040000",
            "D_DST_BASE_ADDR_LOW_0, 0x80040004",
            "SDP.D_OP_ENABLE_0",
            "address 0x80040004, expected a multiple of 8",
        ),
        (
            "biased",
            "D_DST_BASE_ADDR_HIGH_0, 0x0",
            "D_DST_BASE_ADDR_HIGH_0, 0x1000",
            "SDP.D_OP_ENABLE_0",
            "SDP.D_DST_BASE_ADDR_HIGH and SDP.D_DST_BASE_ADDR_LOW: address 0x100080040000, expected 40 bits",
        ),
        (
            "biased",
            "D_BRDMA_CFG_0, 0x2a",
            "D_BRDMA_CFG_0, 0x28",
            "SDP.D_OP_ENABLE_0",
            "SDP takes operands of alu from memory, SDP_RDMA.D_BRDMA_CFG reads mul; expected the same",
        ),
    ],
    ids=lambda value: "",
)
def test_what_the_hardware_does_not_do_is_an_error(
    changed: Callable[..., Path], name: str, old: str, new: str, line: str, message: str
) -> None:
    path = changed(name, (old, new))
    said = refusal(path)
    assert message in said
    assert re.match(rf"{name}\.cfg:\d+: ", said)
    if name != "twice":
        assert said.startswith(f"{name}.cfg:{line_of(path, line)}: ")


def test_what_would_change_results_and_is_not_modelled_is_refused(changed: Callable[..., Path]) -> None:
    image = "reg_write(NVDLA_CDMA.D_DATAIN_FORMAT_0, 0x0);"
    offset = "reg_write(NVDLA_CDMA.D_DATAIN_FORMAT_0, 0xc01);\nreg_write(NVDLA_CDMA.D_PIXEL_OFFSET_0, 0x2);"
    message = "CDMA.D_PIXEL_OFFSET.PIXEL_X_OFFSET is 2, expected 0 for an image: others are not modelled"
    assert message in refusal(changed("twice", (image, offset)))
    halves = "reg_write(NVDLA_PDP.D_DATA_FORMAT_0, 0x2);\nreg_write(NVDLA_PDP.D_NAN_FLUSH_TO_ZERO_0, 0x1);"
    path = changed("pooled", ("reg_write(NVDLA_PDP.D_DATA_FORMAT_0, 0x0);", halves))
    assert "PDP.D_NAN_FLUSH_TO_ZERO is 1, expected 0 in fp16: others are not modelled" in refusal(path)


def test_a_unit_that_the_target_has_not_is_named(changed: Callable[..., Path]) -> None:
    path = changed("biased", ("D_DP_EW_CFG_0, 0x13", "D_DP_EW_CFG_0, 0x52"))
    assert "SDP.D_DP_EW_CFG enables the Y unit, which nv_small has not" in refusal(path)


def test_a_wait_that_nothing_ends_is_an_error(changed: Callable[..., Path]) -> None:
    path = changed("copied", ("wait\n", "wait\nwrite_reg 0xffff0003 0x1\nwait\n"), suffix=".txn")
    said = refusal(path, NV_FULL)
    assert said == f"copied.txn:{line_of(path, 'wait')}: waits for an interrupt, and nothing that runs raises one"


def test_a_masked_interrupt_ends_no_wait(changed: Callable[..., Path]) -> None:
    path = changed("copied", ("wait\n", "write_reg 0xffff0001 0x1\nwait\n"), suffix=".txn")
    assert "waits for an interrupt" in refusal(path, NV_FULL)


def test_copies_that_nothing_launches_and_launches_of_nothing(changed: Callable[..., Path]) -> None:
    launch = "write_reg 0xffff100d 0x1 #NVDLA_BDMA.CFG_LAUNCH0_0\n"
    path = changed("copied", (launch, launch + launch), suffix=".txn")
    assert "BDMA.CFG_LAUNCH0: written while group 0 is not done" in refusal(path, NV_FULL)
    path = changed("copied", ("write_reg 0xffff100c 0x1 #NVDLA_BDMA.CFG_OP_0\n", ""), suffix=".txn")
    assert "BDMA.CFG_LAUNCH0: nothing to launch" in refusal(path, NV_FULL)


def test_a_table_that_an_operation_looks_up_refuses_writes(changed: Callable[..., Path]) -> None:
    lookup = ("D_DP_EW_CFG_0, 0x13", "D_DP_EW_CFG_0, 0x12")
    path = changed("biased", lookup, ("intr_notify", "reg_write(NVDLA_SDP.S_LUT_CFG_0, 0x1);\nintr_notify"))
    assert "SDP.S_LUT_CFG: written while an operation that looks the table up" in refusal(path, NV_LARGE)


def test_a_file_that_is_not_there_is_named(changed: Callable[..., Path]) -> None:
    path = changed("biased", ("biased_80000000.dat", "gone.dat"))
    with pytest.raises(MissingDataError, match=r"biased\.cfg:1: gone\.dat: no such file beside the trace"):
        play(path, NV_SMALL)


def test_what_a_trace_may_ask_for_is_limited(changed: Callable[..., Path]) -> None:
    trace = read_trace(FOLDER / "twice.cfg", register_map(NV_SMALL))
    with pytest.raises(TraceError, match=r"multiply-accumulates, the limit is 1000; raise --max-macs"):
        replay(trace, NV_SMALL, Limits(macs=1000))
    with pytest.raises(TraceError, match=r"--max-memory"):
        replay(trace, NV_SMALL, Limits(memory=1 << 14))
    fill = "mem_init(pri_mem, 0x80040000, 0xffffffff, ALL_ZERO);\nintr_notify"
    assert "4294967295 bytes at 0x80040000: the limit is" in refusal(changed("biased", ("intr_notify", fill)))


def test_files_may_span_more_than_a_trace_may_use(changed: Callable[..., Path]) -> None:
    """Memory is taken for the bytes of a file, not for what lies between: a mutated trace asked for 128 MiB a file."""
    path = changed("biased", ("intr_notify", 'mem_load(pri_mem, 0x90000000, "far.dat");\nintr_notify'))
    lines = [f"{{offset:{number << 27:#x}, size:1, payload:0x1}}," for number in range(8)]
    path.with_name("far.dat").write_text("\n".join(lines))
    trace = read_trace(path, register_map(NV_SMALL))
    assert replay(trace, NV_SMALL, Limits(memory=1 << 20)).holds
    lines = [f"{{offset:{number << 20:#x}, size:1, payload:0x1}}," for number in range(64)]
    path.with_name("far.dat").write_text("\n".join(lines))
    line = line_of(path, "far.dat")
    with pytest.raises(TraceError, match=rf"biased\.cfg:{line}: .* more than 1048576 bytes .*raise --max-memory"):
        replay(trace, NV_SMALL, Limits(memory=1 << 20))


def test_what_a_file_leaves_out_is_not_set(changed: Callable[..., Path]) -> None:
    path = changed("biased")
    source = path.with_name("biased_80000000.dat")
    source.write_text(re.sub(r"(\{offset:0x20, .*\n)", "", source.read_text()))
    assert "reads byte 0x80000020 of pri_mem, which no statement and no operation has set" in refusal(path)


def test_what_a_trace_dumps_is_limited(changed: Callable[..., Path]) -> None:
    check = 'check_file(done, pri_mem, 0x80040000, 0xf0, "same.dat");\n'
    path = changed("biased", ("check_crc(", f"{check * 2}check_crc("))
    path.with_name("same.dat").write_text(
        "{offset:0x8000000, size:1, payload:0x1},\n{offset:0xef, size:1, payload:0x1},"
    )
    trace = read_trace(path, register_map(NV_SMALL))
    result = replay(trace, NV_SMALL, Limits(memory=1 << 17))
    found = [dump.content for dump in result.dumps]
    assert [len(content) for content in found] == [0xF0, 0xF0]
    # What the file leaves out before its last byte of these counts as 0.
    equal = int((found[0][:-1] == 0).sum()) + int(found[0][-1] == 1)
    assert (result.checks[0].kind, result.checks[0].found) == ("file", f"{equal} equal bytes")
    path.write_text(path.read_text().replace('0xf0, "same', '0x10001, "same'))
    with pytest.raises(
        TraceError,
        match=rf"biased\.cfg:{line_of(path, 'same')}: same\.dat: .* 131074 bytes so far, the limit is 131072",
    ):
        replay(read_trace(path, register_map(NV_SMALL)), NV_SMALL, Limits(memory=1 << 17))


def test_memories_are_gone_with_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only once cycles are collected: thousands of replays in one process ran out of memory."""
    seen: list[weakref.ref[TraceMemory]] = []

    def made(limit: int) -> TraceMemory:
        memory = TraceMemory(limit)
        seen.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr("nvdla_quant.registers.replay.TraceMemory", made)
    gc.disable()
    try:
        assert play(FOLDER / "copied.txn", NV_FULL).holds
        with pytest.raises(TraceError):
            replay(read_trace(FOLDER / "twice.cfg", register_map(NV_SMALL)), NV_SMALL, Limits(macs=1000))
        assert len(seen) > 1
        assert [memory() for memory in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_an_operation_that_only_compares_writes_nothing(changed: Callable[..., Path]) -> None:
    """Its destination is nowhere in memory: a mutated trace ended here in a StopIteration."""
    full = TARGETS["nv_small_256_full"]
    result = play(changed("biased", ("D_DP_EW_CFG_0, 0x13", "D_DP_EW_CFG_0, 0x5c")), full)
    assert result.operations == 1
    assert not result.holds
    assert int(result.checks[0].found, 16) == zlib.crc32(bytes(0xF0))
    assert "Y compares for equality" in result.warnings[0]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nvdla-quant", "replay", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_says_what_became_of_each_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changed: Callable[..., Path], tmp_path: Path
) -> None:
    path = str(FOLDER / "biased.cfg")
    assert command(monkeypatch, path, "--configtarget", "nv_small", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["target"], printed["operations"], printed["holds"]) == ("nv_small", 1, True)
    assert [(check["kind"], check["holds"]) for check in printed["checks"]] == [("crc", True)]
    assert command(monkeypatch, path) == 2
    assert "give --configtarget" in capsys.readouterr().err
    wrong = changed("biased", ("D_CVT_OFFSET_0, 0x3", "D_CVT_OFFSET_0, 0x4"))
    assert command(monkeypatch, str(wrong), "--configtarget", "nv_small") == 4
    out = capsys.readouterr().out
    assert re.search(r"line \d+: crc of pri_mem 0x80040000 \+0xf0: found 0x\w+, expected 0x\w+\n", out)
    assert "1 operations, 0 of 1 checks hold" in out
    assert command(monkeypatch, str(FOLDER / "copied.txn"), "--dump", str(tmp_path / "dumps")) == 0
    assert (tmp_path / "dumps" / "copied_result.dat").read_text() == (FOLDER / "copied_result.dat").read_text()
    wrong.write_text("reg_write(NVDLA_SDP.D_NOTHING_0, 0x0);\n")
    assert command(monkeypatch, str(wrong), "--configtarget", "nv_small") == 2
    assert capsys.readouterr().err.endswith("biased.cfg:1: register SDP.D_NOTHING: outside the register map\n")
