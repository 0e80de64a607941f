"""Reading and writing traces and their memory images."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL
from nvdla_quant.registers.map import register_map, spelling
from nvdla_quant.registers.traces.cfg import format_cfg, parse_cfg
from nvdla_quant.registers.traces.files import read_trace, traces_in
from nvdla_quant.registers.traces.payload import format_chunks, format_plain, parse_payload
from nvdla_quant.registers.traces.statements import (
    INTERRUPTS,
    PRIMARY,
    SECONDARY,
    Await,
    CheckCrc,
    CheckFile,
    CheckNothing,
    Expect,
    Fill,
    Load,
    Notify,
    OnInterrupt,
    Read,
    Statement,
    WaitInterrupt,
    Write,
)
from nvdla_quant.registers.traces.txn import format_txn, parse_txn
from tests.register_programs import FOLDER

PATH = Path("some.cfg")
SMALL, FULL = register_map(NV_SMALL), register_map(NV_FULL)
numbers = st.integers(0, (1 << 32) - 1)
memories = st.sampled_from((PRIMARY, SECONDARY))
names = st.from_regex(re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,8}", re.ASCII), fullmatch=True)
files = names.map(lambda name: f"{name}.dat")
registers = st.sampled_from(list(SMALL))
events = st.one_of(st.none(), names)
units = st.sampled_from(sorted(SMALL.units))
line = st.just(0)
cfg_statements = st.one_of(
    st.builds(Write, line, registers, numbers),
    st.builds(Expect, line, registers, st.just(0xFFFFFFFF), numbers, st.booleans()),
    st.builds(Read, line, registers, names),
    st.builds(Fill, line, memories, numbers, numbers, events),
    st.builds(Load, line, memories, numbers, files, st.none(), events),
    st.builds(Notify, line, units, names),
    st.builds(Await, line, units, names),
    st.builds(OnInterrupt, line, st.sampled_from(INTERRUPTS), st.integers(0, 1), names),
    st.builds(OnInterrupt, line, st.none(), st.just(0), names),
    st.builds(CheckCrc, line, names, memories, numbers, numbers, numbers),
    st.builds(CheckFile, line, names, memories, numbers, numbers, files),
    st.builds(CheckNothing, line, names),
)
txn_statements = st.one_of(
    st.builds(Write, line, st.sampled_from(list(FULL)), numbers),
    st.builds(
        lambda r, mask, value: Expect(0, r, mask, value & mask, True), st.sampled_from(list(FULL)), numbers, numbers
    ),
    st.builds(Load, line, st.just(PRIMARY), st.integers(0x80000000, 0xFFFFFFFF), files, numbers),
    st.builds(CheckFile, line, st.none(), st.just(SECONDARY), st.integers(0x50000000, 0x7FFFFFFF), numbers, files),
    st.builds(WaitInterrupt, line),
)


def refusal(call: Callable[..., object], *arguments: object) -> str:
    """Return the message with which a call refuses its arguments, "" where it takes them."""
    try:
        call(*arguments)
    except TraceError as error:
        return str(error)
    return ""


def runs_of(text: str) -> list[tuple[int, bytes]]:
    """Return what a memory image has, as (offset, bytes)."""
    return [(offset, content.tobytes()) for offset, content in parse_payload(text, "a.dat").runs]


def bare(statements: tuple[Statement, ...]) -> list[Statement]:
    return [replace(statement, line=0) for statement in statements]


@given(st.lists(cfg_statements, max_size=8))
def test_a_cfg_reads_as_it_was_written(statements: list[Statement]) -> None:
    trace = parse_cfg(format_cfg(statements), PATH, SMALL)
    assert bare(trace.statements) == statements
    assert [statement.line for statement in trace.statements] == list(range(1, len(statements) + 1))


@given(st.lists(txn_statements, max_size=8))
def test_a_txn_reads_as_it_was_written(statements: list[Statement]) -> None:
    assert bare(parse_txn(format_txn(statements, FULL), PATH, FULL).statements) == statements


pieces = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["reg_write(", "NVDLA_SDP.S_POINTER_0", ",", "0x1", ");", "//", "wait", "write_reg ", "0xffff2c01 ", "\n"]
    ),
)


@given(st.lists(pieces, max_size=12).map("".join))
def test_any_text_is_a_trace_or_a_clear_error(text: str) -> None:
    for parse, mapped in ((parse_cfg, SMALL), (parse_txn, FULL)):
        assert re.match(r"$|some\.cfg:\d+: ", refusal(parse, text, PATH, mapped))


@given(st.binary(min_size=1, max_size=100))
def test_memory_images_read_as_they_were_written(content: bytes) -> None:
    values = np.frombuffer(content, np.uint8)
    for form in (format_chunks, format_plain):
        assert runs_of(form(values)) == [(0, content)]


@given(
    st.lists(
        st.one_of(
            st.text(max_size=8), st.sampled_from(["{offset:", "0x0", ", size:", "4", ", payload:", "0x1 ", "}", ",\n"])
        )
    )
)
def test_any_text_is_a_memory_image_or_a_clear_error(parts: list[str]) -> None:
    assert re.match(r"$|a\.dat:", refusal(parse_payload, "".join(parts), "a.dat"))


def test_nvidias_own_spelling_is_understood() -> None:
    text = """
    // comment
    mem_init(pri_mem, 0x80000000, 0x10, ALL_ZERO); // comment
    reg_write( NVDLA_SDP.S_POINTER_0 ,0x0 );
    intr_notify(cdma_dat_0, id);
    check_crc(id, 1, 0x80000000, 16, 0xecbb4b55);
    mem_reserve(pri_mem,0x80000000,0x10);
    mem_release(pri_mem,0x80000000,some_event);
    """
    assert bare(parse_cfg(text, PATH, SMALL).statements) == [
        Fill(0, PRIMARY, 0x80000000, 16),
        Write(0, SMALL.register("SDP", "S_POINTER"), 0),
        OnInterrupt(0, "CDMA_DAT", 0, "id"),
        CheckCrc(0, "id", PRIMARY, 0x80000000, 16, 0xECBB4B55),
    ]
    text = "# comment\nwrite_reg 0xffff2c01 0x1 #NVDLA_SDP.S_POINTER_0\nwait\n"
    assert bare(parse_txn(text, PATH, FULL).statements) == [
        Write(0, FULL.register("SDP", "S_POINTER"), 1),
        WaitInterrupt(0),
    ]


def test_heads_of_memory_images_are_passed_over() -> None:
    head = "Data_size = 0x40\ndumped memory,start_address=0x80100000 size=0x2\n====\n\n"
    assert runs_of(f"{head} 0x11 0x20\ndump done\n") == [(0, b"\x11\x20")]


def test_what_lies_between_the_lines_of_a_memory_image_is_not_there() -> None:
    """NVIDIA's span 93 MiB with 3 KiB of bytes; their player writes these alone (``mem_core.svh``)."""
    lines = [(0x20, "0x3 0x4"), (0x22, "0x5"), (0x8000000, "0x6"), (0, "0x1"), (0x21, "0x7")]
    text = "\n".join(f"{{offset:{at:#x}, size:{len(bytes_.split())}, payload:{bytes_}}}," for at, bytes_ in lines)
    payload = parse_payload(text, "a.dat")
    assert runs_of(text) == [(0x20, b"\3\4\5"), (0x8000000, b"\6"), (0, b"\1"), (0x21, b"\7")]
    assert payload.end == 0x8000001
    assert payload.up_to(0x22).end == 0x22
    assert parse_payload("{\n}\n", "a.dat").end == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reg_write(NVDLA_SDP.S_POINTER_0, 0x0)", "expected name"),
        ("reg_wrote(NVDLA_SDP.S_POINTER_0, 0x0);", "reg_wrote: unknown statement, expected one of reg_write, "),
        ("reg_write(NVDLA_SDP.S_POINTER_0);", "reg_write: 1 arguments, expected 2"),
        ("reg_write(NVDLA_SDP.S_POINTER_0, 0x100000000);", "value 0x100000000: expected 32 bits"),
        ("reg_write(NVDLA_SDP.S_POINTER_0, one);", "'one' is no number"),
        ("reg_write(NVDLA_SDP.S_POINTING_0, 1);", "register SDP.S_POINTING: outside the register map"),
        ("mem_init(pri_mem, 0x0, 0x10, RANDOM);", "pattern RANDOM: expected ALL_ZERO"),
        ("mem_init(any_mem, 0x0, 0x10, ALL_ZERO);", "memory 'any_mem': expected pri_mem or sec_mem"),
        ("mem_init(pri_mem, 0x0, -1, ALL_ZERO);", "expected no negative numbers"),
        ('mem_load(pri_mem, 0x0, "../secret.dat");', "expected the name, in quotes, of a file beside the trace"),
        ('mem_load(pri_mem, 0x0, "..");', "expected the name, in quotes, of a file beside the trace"),
        ("intr_notify(SDP_2, id);", "interrupt SDP_2: expected SDP, CDP, "),
        ("sync_wait(NVDLA_SPD, id);", "unit NVDLA_SPD: outside the register map"),
    ],
)
def test_what_is_wrong_in_a_cfg_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TraceError, match=f"^some.cfg:2: .*{re.escape(message)}"):
        parse_cfg(f"\n{text}\n", PATH, SMALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("write_reg 0xffff2c01", "write_reg: 1 arguments, expected 2"),
        ("write_reg 0xffffffff 0x0", "register address 0x3fffc: outside the register map"),
        ("dump_mem 0x80000000 0x10 ../x.dat", "expected the name of a file beside the trace"),
        ("hang", "hang: unknown statement, expected one of write_reg, "),
    ],
)
def test_what_is_wrong_in_a_txn_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TraceError, match=f"^some.cfg:2: .*{re.escape(message)}"):
        parse_txn(f"\n{text}\n", PATH, FULL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n{offset:0x0, size:4, payload:0x1 0x2},\n}", "a.dat:2: 2 bytes of payload, expected the size, 4"),
        ("{offset:0x0, size:1, payload:0x100},", "a.dat:1: '0x100', expected bytes from 0x00 to 0xff"),
        (
            "{offset:0xffffffffff, size:2, payload:0x1 0x2},",
            "a.dat:1: ends at byte 1099511627777, expected at most 1099511627776",
        ),
        ("{offset 0}", "a.dat:1: '{offset 0}', expected {offset:N, size:N, payload:0xNN ...}"),
        ("nothing", "a.dat: no bytes"),
    ],
)
def test_what_is_wrong_in_a_memory_image_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TraceError, match=re.escape(message)):
        parse_payload(text, "a.dat")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.log"
    path.touch()
    with pytest.raises(TraceError, match=r"ends in '\.log', expected \.cfg or \.txn"):
        read_trace(path, SMALL)


def test_traces_of_a_folder_come_in_the_order_of_their_names() -> None:
    assert [path.name for path in traces_in(FOLDER)] == ["biased.cfg", "copied.txn", "pooled.cfg", "twice.cfg"]


def test_a_format_refuses_what_it_has_no_statement_for() -> None:
    with pytest.raises(TraceError, match=r"WaitInterrupt: a \.cfg has no such statement"):
        format_cfg([WaitInterrupt(0)])
    with pytest.raises(TraceError, match=r"Notify: a \.txn has no such statement"):
        format_txn([Notify(0, "SDP", "id")], FULL)
    assert spelling(SMALL.register("SDP", "D_OP_ENABLE")) == "NVDLA_SDP.D_OP_ENABLE_0"
