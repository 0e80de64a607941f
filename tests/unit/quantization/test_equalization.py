"""Cross-layer equalization: by hand on two channels, against equation 11, and as a thing that changes no result."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.graph import Clip, Convolution, Flatten, InnerProduct, Network, PReLU, ReLU, Softmax
from nvdla_quant.network.passes import prepare
from nvdla_quant.quantization.equalization import NEGLIGIBLE, equalize, links_of, watched_tensors
from nvdla_quant.quantization.unchanged import check_unchanged, equalize_checked, largest_magnitudes
from tests.networks.builder import Builder
from tests.networks.mobile import mobilenet2_relu6

Array = NDArray[np.float32]


def pointwise(*rows: list[float]) -> Convolution:
    return Convolution(np.array(rows, np.float32)[..., None, None], None)


def images_of(network: Network, count: int = 8, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *network.only_input.shape)).astype(np.float32)


def computed(network: Network, images: Array) -> Array:
    (values,) = Reference(network).run(images).values()
    return values


def weights_of(network: Network, name: str) -> Array:
    operation = network.by_name[name].operation
    assert isinstance(operation, Convolution | InnerProduct)
    return operation.weights


def two_layers() -> Network:
    """Ranges of the first's outputs 8 and 1, of the second's inputs 2 and 4."""
    builder = Builder("two", (1, 4, 4))
    last = builder.relu("relu", builder.add("first", pointwise([8], [1]), "data"))
    builder.add("second", pointwise([2, -4], [1, 1]), last)
    return builder.build()


def test_the_factors_are_those_of_equation_11() -> None:
    """s = sqrt(r1 r2) / r2: sqrt(8 * 2) / 2 = 2 and sqrt(1 * 4) / 4 = 1/2, so that both ranges are 4 and 2."""
    network = two_layers()
    equalized = equalize(network, {"relu": np.array([8.0, 4.0])})
    assert weights_of(equalized.network, "first").ravel().tolist() == [4, 2]
    assert weights_of(equalized.network, "second").reshape(2, 2).tolist() == [[4, -2], [2, 0.5]]
    (change,) = equalized.changes
    assert (change.first, change.second, change.channels, change.scaled) == ("first", "second", 2, 2)
    assert (change.spread_before, change.spread_after) == (8, 2)


def test_a_channel_does_not_grow_beyond_the_largest_value_of_its_tensor() -> None:
    """The second channel's factor 1/2 would make 7 of 3.5 where all others are below 5: it is 0.7."""
    equalized = equalize(two_layers(), {"relu": np.array([5.0, 3.5])})
    assert weights_of(equalized.network, "first").ravel() == pytest.approx([4, 1 / 0.7])


def test_channels_that_carry_nothing_are_left() -> None:
    builder = Builder("dead", (1, 2, 2))
    last = builder.add("first", pointwise([1], [0], [1e-9], [4]), "data")
    builder.add("second", pointwise([1, 1, NEGLIGIBLE, 0]), last)
    equalized = equalize(builder.build(), {"first": np.ones(4)})
    assert weights_of(equalized.network, "first").ravel().tolist() == pytest.approx([1, 0, 1e-9, 4])
    assert equalized.changes[0].scaled == 0


def bounded(high: float) -> Network:
    network = two_layers()
    layers = tuple(replace(one, operation=Clip(0.0, high)) if one.name == "relu" else one for one in network.layers)
    return replace(network, layers=layers)


def test_a_channel_that_reaches_a_bound_is_left_and_others_stay_below_it() -> None:
    """Images of 0 to 1: the first channel reaches 6 at 0.75; the second has at most 1, and 1 / (1/2) * 1.25 below 6."""
    network = bounded(6.0)
    images = np.linspace(0, 1, 64, dtype=np.float32).reshape(4, 1, 4, 4)
    equalized = equalize_checked(network, network, [images])
    assert weights_of(equalized.network, "first").ravel().tolist() == [8, 2]
    (change,) = equalized.changes
    assert change.remark == (
        "bound 6 of relu: 1 channels stay below it on the calibration images and go on to, 1 reach it and are left"
    )
    assert computed(equalized.network, images) == pytest.approx(computed(network, images), abs=1e-6)


def test_what_is_watched_is_stored_or_read_by_a_bound() -> None:
    assert watched_tensors(two_layers()) == ("relu",)
    assert watched_tensors(bounded(6.0)) == ("first",)


def test_a_network_that_computes_something_else_is_refused() -> None:
    network = two_layers()
    changed = list(network.layers)
    changed[2] = replace(changed[2], operation=pointwise([2, -4.01], [1, 1]))
    images = [images_of(network), images_of(network, seed=2)]
    check_unchanged(network, network, images)
    with pytest.raises(NetworkError, match=r"equalized, its output 'second' differs by 0\.\d+ for image \d of cal"):
        check_unchanged(network, replace(network, layers=tuple(changed)), images)


def test_links_end_where_channels_are_read_twice_or_mixed() -> None:
    builder = Builder("branches", (3, 8, 8))
    stem = builder.conv("stem", "data", 4, 3)
    inner = builder.conv("inner", builder.relu("relu", stem), 4, 3)
    last = builder.add(
        "vector", Flatten(), builder.pool("pool", builder.eltwise("sum", "sum", inner, "relu"), "max", 2, 2)
    )
    last = builder.add("fc", InnerProduct(builder.normal((6, 64), 0.1), None), last)
    last = builder.add("slopes", PReLU(np.full(6, 0.25, np.float32)), last)
    builder.add("scores", Softmax(), builder.add("last", InnerProduct(builder.normal((3, 6), 0.1), None), last))
    assert [(link.first, link.second) for link in links_of(builder.build())] == [("fc", "last")]


def test_channels_pass_poolings_and_vectors() -> None:
    builder = Builder("vector", (2, 4, 4))
    last = builder.pool("pool", builder.relu("relu", builder.conv("conv", "data", 3, 3)), "max", 2, 2)
    last = builder.add("flat", Flatten(), last)
    builder.add("fc", InnerProduct(builder.normal((5, 12), 1), None), last)
    network = builder.build()
    images = images_of(network)
    equalized = equalize(network, largest_magnitudes(network, watched_tensors(network), [images]))
    assert [(one.first, one.second, one.channels) for one in equalized.changes] == [("conv", "fc", 3)]
    assert computed(equalized.network, images) == pytest.approx(computed(network, images), rel=1e-4, abs=1e-5)


@st.composite
def chains(draw: st.DrawFn) -> Network:
    """Convolutions in a row, grouped or not, of channels whose ranges are far apart, with what stands between them."""
    builder = Builder("chain", (draw(st.sampled_from([2, 4])), 6, 6), seed=draw(st.integers(0, 99)))
    last = "data"
    for number in range(draw(st.integers(2, 4))):
        inputs = builder.channels(last)
        group = draw(st.sampled_from([1, 2, inputs])) if inputs % 2 == 0 else 1
        outputs = group * draw(st.integers(1, 3))
        spread = np.exp(builder.normal((outputs, 1, 1, 1), 2.0))
        weights = builder.normal((outputs, inputs // group, 3, 3), 0.3) * spread
        bias = builder.normal((outputs,), 0.1)
        operation = Convolution(weights, bias, pad=(1, 1), group=group)
        last = builder.add(f"conv{number}", operation, last)
        between = draw(st.sampled_from(["none", "relu", "relu6", "prelu", "pool"]))
        if between == "relu":
            last = builder.add(f"relu{number}", ReLU(), last)
        elif between == "relu6":
            last = builder.add(f"relu{number}", Clip(0.0, 6.0), last)
        elif between == "prelu":
            last = builder.add(f"relu{number}", PReLU(np.full(outputs, -0.5, np.float32)), last)
        elif between == "pool" and number < 2:
            last = builder.pool(f"pool{number}", last, "average", 2, 1)
    return builder.build()


@settings(max_examples=40)
@given(chains(), st.integers(0, 99))
def test_results_stay_and_ranges_come_together(network: Network, seed: int) -> None:
    images = images_of(network, 4, seed)
    equalized = equalize_checked(network, network, [images])
    again = equalize(equalized.network, largest_magnitudes(equalized.network, watched_tensors(network), [images]))
    for first, second in zip(equalized.changes, again.changes, strict=True):
        assert second.spread_after == pytest.approx(first.spread_after, rel=0.05)  # It had settled.


def test_a_mobilenet_with_relu6_is_equalized() -> None:
    network = mobilenet2_relu6(32, 0.25)
    folded = prepare(network, "fold")
    images = images_of(network, 4)
    equalized = equalize_checked(network, folded, [images])
    assert len(equalized.changes) == len(links_of(folded)) >= 30
    assert list(equalized.network.tensors) == list(folded.tensors)
