"""Specifications: the seven read back, each rule refused by name, and no text that crashes the parser."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import ConfigError
from nvdla_quant.hardware.spec import MAX_BYTES, parse_spec, read_spec, target_of
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, TARGETS, Precision, Target
from tests.specifications import legal_values, text_of, values_of


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_seven_are_what_their_specifications_say(target: Target) -> None:
    assert parse_spec(text_of(values_of(target)), target.name, "x") == target


def test_what_follows_from_a_specification() -> None:
    values = values_of(NV_LARGE) | {"SDP_LUT": "DISABLE", "CBUF_BANK_NUMBER": "8", "MAC_ATOMIC_K_SIZE": "16"}
    found = parse_spec(text_of(values | {"MEMORY_ATOMIC_SIZE": "16"}), "own", "x")
    expected = replace(NV_LARGE, name="own", has_lut=False, cbuf_banks=8, atomic_k=16, feature_atom_bytes=16)
    assert found == expected
    assert (found.has_y, found.kernels_per_group(1), found.cbuf_bank_bytes) == (True, 16, 32768)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CBUF_BANK_WIDTH": "64"}, "CBUF_BANK_WIDTH_64 with MAC_ATOMIC_C_SIZE_8: the rule is that both are equal"),
        ({"MEMORY_ATOMIC_SIZE": "16"}, "MEMORY_ATOMIC_SIZE_16 with MAC_ATOMIC_K_SIZE_8: the rule is that both are"),
        (
            {"MAC_ATOMIC_C_SIZE": "64", "CBUF_BANK_WIDTH": "64"},
            "MAC_ATOMIC_C_SIZE_64 with MAC_ATOMIC_K_SIZE_8: the rule is C = K times one of 1, 2, 4",
        ),
        ({"MAC_ATOMIC_K_SIZE": "16", "MEMORY_ATOMIC_SIZE": "16"}, "the rule is C = K times"),
        ({"MAC_ATOMIC_C_SIZE": "12"}, "MAC_ATOMIC_C_SIZE_12, expected a power of two from 8 to 64"),
        ({"CBUF_BANK_NUMBER": "24"}, "CBUF_BANK_NUMBER_24, expected a power of two from 2 to 32"),
        ({"CBUF_BANK_DEPTH": "8192"}, "CBUF_BANK_DEPTH_8192, expected a power of two from 64 to 4096"),
        ({"CBUF_BANK_DEPTH": "x"}, "CBUF_BANK_DEPTH_x, expected a number$"),
        ({"PDP_THROUGHPUT": "x"}, "PDP_THROUGHPUT_x, expected a number: PDP_ENABLE needs it"),
        ({"SDP_BS": "DISABLE"}, "SDP_BS_DISABLE is not covered: all configurations of nvdla/hw have it"),
        ({"SDP_LUT": "ENABLE"}, "SDP_LUT_ENABLE with SDP_EW_DISABLE"),
        ({"WINOGRAD": "ENABLE"}, "WINOGRAD_ENABLE without nv_full's types and atoms is not covered"),
        ({"WEIGHT_COMPRESSION": "ENABLE"}, "WEIGHT_COMPRESSION_ENABLE without nv_full's types"),
        ({"BDMA": "ENABLE"}, "BDMA_ENABLE with MEMORY_ATOMIC_SIZE_8 is not covered"),
        ({"RUBIK": "ENABLE"}, "RUBIK_CONTRACT_DISABLE with RUBIK_ENABLE is not covered"),
        ({"BATCH": "ENABLE", "MAX_BATCH_SIZE": "16"}, "MAX_BATCH_SIZE_16 with BATCH_ENABLE is not covered"),
        ({"SOFTMAX": "ENABLE"}, "SOFTMAX_ENABLE asks for a part that none of nvdla/hw's configurations has"),
        ({"SDP_EV": "ENABLE"}, "no code covers it; did you mean SDP_EW"),
        ({"MAC_ATOMC_C_SIZE": "8"}, "MAC_ATOMC_C_SIZE_8 is no name .*did you mean MAC_ATOMIC_C_SIZE"),
        ({"FEATURE_DATA_TYPE": "INT16"}, "FEATURE_DATA_TYPE_INT16 is not covered"),
        ({"MEM_ADDRESS_WIDTH": "40"}, "MEM_ADDRESS_WIDTH_40, expected 32 or 64"),
        ({"CDP_THROUGHPUT": "0"}, "CDP_THROUGHPUT_0, expected a number of 1 to"),
    ],
)
def test_what_is_not_legal_is_refused_with_the_rule(change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^own.spec: .*{message}"):
        parse_spec(text_of(values_of(NV_SMALL) | change), "own", "own.spec")


@pytest.mark.parametrize("missing", ["PDP", "CBUF_BANK_DEPTH", "SECONDARY_MEMIF_WIDTH"])
def test_what_is_missing_is_named(missing: str) -> None:
    values = values_of(NV_SMALL)
    del values[missing]
    with pytest.raises(ConfigError, match=f"{missing} is missing; add `#define {missing}_"):
        parse_spec(text_of(values), "own", "own.spec")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("#define PDP_DISABLE", "line 1: PDP_DISABLE|PDP_ENABLE, but PDP_DISABLE stands above"),
        ("#if defined(X)", r"line 1: '#if defined\(X\)', expected `#define NAME_VALUE`"),
        ('#include "other.spec"', "expected `#define NAME_VALUE`"),
        ("%define X 1", "expected `#define NAME_VALUE`"),
        ("#define PDP_ENABLE 1", "expected `#define NAME_VALUE`"),
    ],
)
def test_nothing_but_lists_of_names_is_read(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_spec(f"{line}\n{text_of(values_of(NV_SMALL))}", "own", "own.spec")


def test_types_of_nv_full_need_its_atoms() -> None:
    values = {name: value for name, value in values_of(NV_SMALL).items() if not name.endswith("DATA_TYPE")}
    with pytest.raises(ConfigError, match=r"no FEATURE_DATA_TYPE, .* covered for nv_full's \(64, 32, 32\) alone"):
        parse_spec(text_of(values), "own", "own.spec")
    with pytest.raises(ConfigError, match="FEATURE_DATA_TYPE without WEIGHT_DATA_TYPE"):
        parse_spec(text_of({**values, "FEATURE_DATA_TYPE": "INT8"}), "own", "own.spec")
    assert target_of("nv_full").precisions == frozenset(Precision)


def test_targets_by_name_by_path_and_by_record(tmp_path: Path) -> None:
    path = tmp_path / "mine.spec"
    path.write_text(text_of(values_of(NV_SMALL)))
    assert target_of("nv_full") is NV_FULL
    assert target_of(str(path)) == target_of(path) == replace(NV_SMALL, name="mine")
    assert target_of({"name": "other", "spec": str(path)}) == replace(NV_SMALL, name="other")
    with pytest.raises(ConfigError, match=r"unknown target 'nv_tiny', expected one of nv_full, .* or the path"):
        target_of("nv_tiny")
    with pytest.raises(ConfigError, match=r"none.spec: not a readable specification"):
        target_of(str(tmp_path / "none.spec"))
    with pytest.raises(ConfigError, match="'No Name' is no name of a target"):
        read_spec(path, "No Name")
    path.write_bytes(b"//" * MAX_BYTES)
    with pytest.raises(ConfigError, match=f"more than {MAX_BYTES} bytes"):
        target_of(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a readable specification"):
        target_of(path)


@given(legal_values())
def test_legal_specifications_are_read(values: dict[str, str]) -> None:
    target = parse_spec(text_of(values), "own", "own.spec")
    assert {name: value for name, value in values_of(target).items() if name in values} == values


@given(st.text(max_size=200), st.data())
def test_no_text_crashes_the_parser(junk: str, data: st.DataObject) -> None:
    """Text, and a specification with a part of it replaced: a target or a clear error."""
    text = text_of(values_of(data.draw(st.sampled_from(list(TARGETS.values())))))
    start = data.draw(st.integers(0, len(text)))
    mutated = text[:start] + junk + text[start + data.draw(st.integers(0, 30)) :]
    for content in (junk, mutated):
        try:
            said = f"{parse_spec(content, 'own', 'own.spec').name}.spec: "
        except ConfigError as error:
            said = str(error)
        assert said.startswith("own.spec: ")
