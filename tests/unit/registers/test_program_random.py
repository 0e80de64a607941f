"""Random networks as traces: written, read and replayed, every check holds, and what is left is the loadable's."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from nvdla_quant.emulator.run import run
from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import NV_FULL
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.program.build import HardwarePart
from nvdla_quant.registers.program.image import Bases, make_program
from nvdla_quant.registers.program.traces import cfg_files, txn_files
from nvdla_quant.registers.replay import replay
from nvdla_quant.registers.traces.files import read_trace
from tests.networks.random import Drawn, Variant, drawn_case, networks, variants
from tests.profiles import examples


@settings(max_examples=examples(25))
@given(networks(longest=3), variants())
def test_a_trace_leaves_what_the_loadable_computes(drawn: Drawn, variant: Variant) -> None:
    case = drawn_case(drawn, variant, images=1)
    if case is None:
        return
    decoded, target = case.program, variant.target
    image = case.inputs(decoded)[0]
    program = make_program(case.loadable, image, target)
    assert np.array_equal(program.values, run(decoded, image[None])[0], equal_nan=True)
    write = txn_files if target.name == NV_FULL.name else cfg_files
    hardware = [isinstance(part, HardwarePart) for part in program.parts]
    if hardware not in ([True], [True, False]):
        with pytest.raises(TraceError, match="processor"):
            write(program, Bases(), "net")
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, text in write(program, Bases(), "net").items():
            (Path(folder) / name).write_text(text)
        (trace,) = (path for path in Path(folder).iterdir() if path.suffix != ".dat")
        result = replay(read_trace(trace, register_map(target)), target)
    assert result.holds, result.checks
    assert result.operations > 0
