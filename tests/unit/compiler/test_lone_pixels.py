"""Deconvolutions that would write one pixel at a time: `check`, compiler and emulator refuse what hardware spoils.

NVIDIA's C-model ends with an assertion there, and without it leaves other bytes than the strides say.
"""

import re

import numpy as np
import pytest

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.errors import CompileError, EmulationError
from nvdla_quant.hardware.targets import NV_SMALL_256_FULL, TARGETS, Precision, Target
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.network.graph import Deconvolution, Network
from nvdla_quant.support.check import check
from nvdla_quant.table.table import CalibrationTable
from tests.layered import PER_FILTER, chain, random_weights

RNG = np.random.default_rng(3)


def up(shape: tuple[int, int, int], outputs: int, kernel: int, stride: int, pad: int = 0) -> Network:
    weights = random_weights(RNG, shape[0], outputs, kernel, kernel)
    return chain(shape, Deconvolution(weights, None, stride=(stride, stride), pad=(pad, pad)))


def made(network: Network, target: Target) -> bytes:
    table = CalibrationTable(dict.fromkeys(network.tensors, 1 / 32))
    return compile_network(network, table, target, Precision.INT8, PER_FILTER).data


SPOILED = {
    "one pixel, phases of one": ((40, 1, 1), 40, 2, 2),
    "one pixel, phases of one and of none": ((40, 1, 1), 40, 2, 5),
    "one pixel, phases of two and of one": ((40, 1, 1), 40, 3, 2),
    "four pixels, phases of two and of one": ((40, 2, 2), 40, 3, 2, 1),
}
GOOD = {
    "within an atom": ((8, 1, 1), 8, 2, 2),
    "two pixels wide and high": ((40, 2, 2), 40, 2, 2),
    "four pixels, even": ((40, 4, 4), 40, 4, 2, 1),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_spoiled_is_refused(name: str) -> None:
    network = up(*SPOILED[name])
    found = [item for item in check(network, NV_SMALL_256_FULL, Precision.INT8) if item.rule == "pixel"]
    assert [item.severity for item in found] == ["error"]
    with pytest.raises(CompileError, match="of one pixel the SDP takes all atoms one behind the other"):
        made(network, NV_SMALL_256_FULL)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("name", GOOD)
def test_others_run(name: str, target: Target) -> None:
    network = up(*GOOD[name])
    assert not [item for item in check(network, target, Precision.INT8) if item.severity == "error"]
    decode(parse_loadable(made(network, target)), target)


@pytest.mark.parametrize("name", SPOILED)
def test_the_emulator_refuses_them_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that does not know the rule: this one without it."""
    from nvdla_quant.compiler import compile as compiler

    monkeypatch.setattr(compiler, "check", lambda *_: ())
    monkeypatch.setattr(compiler._Stages, "_check_pixels", lambda _: None)
    loadable = parse_loadable(made(up(*SPOILED[name]), NV_SMALL_256_FULL))
    with pytest.raises(EmulationError, match=re.escape("8: of one pixel hardware ignores it")):
        decode(loadable, NV_SMALL_256_FULL)
