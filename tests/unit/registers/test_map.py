"""The register map against single facts of NVIDIA's headers."""

from itertools import combinations

import pytest

from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, TARGETS, Target
from nvdla_quant.registers.map import register_map, spelling


@pytest.mark.parametrize(
    ("target", "register", "address"),
    [
        # kmd/firmware/include/opendla_initial.h and opendla_small.h
        (NV_FULL, "GLB.S_INTR_MASK", 0x4),
        (NV_FULL, "BDMA.CFG_DST_SURF", 0x402C),
        (NV_FULL, "CDMA.D_OP_ENABLE", 0x5010),
        (NV_FULL, "SDP.D_OP_ENABLE", 0xB038),
        (NV_FULL, "RBK.D_OP_ENABLE", 0x10008),
        (NV_SMALL, "GLB.S_INTR_MASK", 0x1004),
        (NV_SMALL, "CDMA.D_OP_ENABLE", 0x3010),
        (NV_SMALL, "SDP.D_OP_ENABLE", 0x9038),
        (NV_LARGE, "CDP.D_OP_ENABLE", 0xD048),
    ],
)
def test_addresses_are_those_of_the_firmware(target: Target, register: str, address: int) -> None:
    registers = register_map(target)
    assert str(registers.at(address)) == register
    assert registers.address(registers.register(*register.split("."))) == address


@pytest.mark.parametrize(
    ("target", "name", "write_mask", "reset"),
    [
        # opendla_initial.h and nvdlav1's arnvdla.h; master's NVDLA_CDMA.rdl
        (NV_FULL, "CDMA.D_DATAIN_FORMAT", 0x113F01, 0xC00),
        (NV_FULL, "CDMA.D_LINE_STRIDE", 0xFFFFFFE0, 0),
        (NV_FULL, "CDMA.D_WEIGHT_BYTES", 0xFFFFFF80, 0),
        (NV_FULL, "CDMA.D_BANK", 0xF000F, 0),
        (NV_FULL, "SDP.D_DP_BS_CFG", 0x7F, 0),
        (NV_SMALL, "CDMA.D_LINE_STRIDE", 0xFFFFFFFF, 0),
        (NV_SMALL, "CDMA.D_BANK", 0x1F001F, 0),
        (NV_SMALL, "CDMA.D_ENTRY_PER_SLICE", 0x3FFF, 0),
        (NV_SMALL, "SDP.D_DP_BS_CFG", 0x7F, 0x73),
        (NV_SMALL, "SDP.S_POINTER", 0x1, 0),
    ],
)
def test_fields_are_as_wide_as_the_target_has_them(target: Target, name: str, write_mask: int, reset: int) -> None:
    register = register_map(target).register(*name.split("."))
    assert (register.write_mask, register.reset) == (write_mask, reset)


@pytest.mark.parametrize("target", [NV_FULL, NV_SMALL], ids=lambda target: target.name)
def test_fields_of_a_register_do_not_meet(target: Target) -> None:
    for register in register_map(target):
        assert not [pair for pair in combinations(register.fields, 2) if pair[0].mask & pair[1].mask], register
        assert register.read_mask < 1 << 32, register
        assert register_map(target).spelled(spelling(register)) is register


def test_only_units_that_a_target_has_are_in_its_map() -> None:
    for target in TARGETS.values():
        assert ("BDMA" in register_map(target).units) == target.has_bdma
        assert ("RBK" in register_map(target).units) == target.has_rubik


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NVDLA_CDMA.D_NOTHING_0", "register CDMA.D_NOTHING: outside the register map"),
        ("NVDLA_BDMA.CFG_OP_0", "unit BDMA: outside the register map"),
        ("CDMA", "register CDMA: expected UNIT.REGISTER"),
    ],
)
def test_what_is_outside_the_map_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        register_map(NV_SMALL).spelled(name)


def test_an_address_outside_the_map_is_refused() -> None:
    with pytest.raises(TraceError, match="register address 0x9f00: outside the register map"):
        register_map(NV_SMALL).at(0x9F00)


def test_a_field_refuses_what_it_has_no_bits_for() -> None:
    bank = register_map(NV_SMALL).register("CDMA", "D_BANK")
    assert bank.value({"DATA_BANK": 3, "WEIGHT_BANK": 27}) == 27 << 16 | 3
    with pytest.raises(TraceError, match="DATA_BANK: 32, expected 0 to 31"):
        bank.value({"DATA_BANK": 32})
