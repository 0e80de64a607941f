"""Softmax of more than one pixel: NVIDIA's runtime takes one at a time, so each is an operation of its own.

(nvdla/sw ``umd/core/src/runtime/Emulator.cpp`` ``executeSoftmax``: as many values as there are channels, from the first
byte on, whatever height, width and strides are; docs/hardware/cpu.md.)
"""

import numpy as np
import pytest

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Precision, QuantizationMode, Target
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.network.graph import Network, Pooling, Softmax
from nvdla_quant.network.moves import Crop
from nvdla_quant.support.check import MAX_SOFTMAX_PIXELS, check
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.layered import FP16, INT8, VARIANTS, case, chain, convolution, follows


def scored(classes: int = 5, *before: Pooling | Crop) -> Network:
    """A score a class and pixel, and their softmax."""
    return chain((3, 4, 6), convolution(np.random.default_rng(2), classes, 3), *before, Softmax())


@pytest.mark.parametrize(("target", "mode"), VARIANTS)
@pytest.mark.parametrize("network", [scored(), scored(8, Crop((1, 2), (2, 3)))], ids=["whole", "cropped"])
def test_each_pixel_has_its_own(network: Network, target: Target, mode: QuantizationMode | None) -> None:
    """A probability is cut off to a step of 1/127; the scores cost the rest: half a step of theirs is 2 of these."""
    compilation = follows(network, target, mode, 4.0, correlation=0.998)
    _, height, width = network.only_output.chw
    assert compilation.facts.units["CPU"] == height * width
    found = case(network, target, mode)
    verdict = found.verify().verdict
    assert verdict.verdict is Judgement.OK, verdict


def test_the_scores_are_taken_before_it() -> None:
    """So that classes that tie in int8 probabilities do not count as equal."""
    for target, mode in ((NV_SMALL, QuantizationMode.PER_FILTER), (NV_FULL, None)):
        found = case(scored(), target, mode)
        (before,) = found.program.before_softmax
        assert before.destination.shape == (5, 4, 6)
        assert before.index == 1


def test_pixels_are_independent() -> None:
    """The softmax of one pixel alone, of a network whose input is the scores, is that of the pixel among others."""
    classes = NV_FULL.feature_atom_bytes
    table = CalibrationTable({"data": 0.05, "l0": 1 / 127})
    scores = np.random.default_rng(4).integers(-128, 128, (6, classes, 3, 2)).astype(np.int8)

    def computed(shape: tuple[int, int, int], values: np.ndarray) -> np.ndarray:
        compilation = compile_network(chain(shape, Softmax()), table, NV_FULL, INT8)
        return run(decode(parse_loadable(compilation.data), NV_FULL), values)

    together = computed((classes, 3, 2), scores)
    assert len(np.unique(together)) > 20
    for row, column in np.ndindex(3, 2):
        pixel = slice(row, row + 1), slice(column, column + 1)
        alone = computed((classes, 1, 1), np.ascontiguousarray(scores[:, :, *pixel]))
        np.testing.assert_array_equal(together[:, :, *pixel], alone)


@pytest.mark.parametrize(
    ("target", "precision", "classes"), [(NV_SMALL, INT8, 8), (NV_FULL, INT8, 32), (NV_FULL, FP16, 16)]
)
def test_channels_beyond_an_atom_are_refused(target: Target, precision: Precision, classes: int) -> None:
    """Atoms: 8 bytes on nv_small, 32 on nv_full. Of one pixel all atoms stand in a row, and any number goes."""
    assert check(scored(classes), target, precision) == ()
    (finding,) = check(scored(classes + 1), target, precision)
    assert (finding.rule, finding.severity) == ("softmax-size", "error")
    assert f"{classes + 1} channels of 4 x 6 pixels" in finding.message
    assert f"only {classes} of them" in finding.message
    assert finding.rewrite == "end the network before it: the largest class of each pixel is the same"
    with pytest.raises(CompileError, match=r"layer 'l1': .* channels of 4 x 6 pixels"):
        compile_network(scored(classes + 1), None, target, precision)
    assert check(scored(classes + 1, Pooling("average", (4, 6))), target, precision) == ()


def test_too_many_pixels_are_refused() -> None:
    side = int(MAX_SOFTMAX_PIXELS**0.5)
    assert check(chain((8, side, side), Softmax()), NV_SMALL, INT8) == ()
    (finding,) = check(chain((8, side, side + 1), Softmax()), NV_SMALL, INT8)
    assert finding.rule == "softmax-size"
    assert f"the limit is {MAX_SOFTMAX_PIXELS}" in finding.message
