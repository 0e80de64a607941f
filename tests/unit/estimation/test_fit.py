"""Latency and bandwidth from measured times: made by the model itself, with noise; and what a file of them may be."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdla_quant.errors import MeasurementError
from nvdla_quant.estimation.estimate import Estimate, estimate
from nvdla_quant.estimation.fit import fit
from nvdla_quant.estimation.measured import read_measured
from nvdla_quant.hardware.targets import NV_LARGE, NV_SMALL, TARGETS, Target
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.timing.memory import memory_of
from tests.estimated import lenet

LAYERS = {0: ("conv1",), 1: ("conv1",), 2: ("pool1",), 3: ("conv2",), 4: ("conv2",)}


def times_of(found: Estimate, noise: float = 0.0) -> dict[int, float]:
    """What a board would take that the model describes, up to a random part."""
    rng = np.random.default_rng(0)
    return {row.operation: row.cycles * float(np.exp(rng.normal(0, noise))) for row in found.rows if row.works}


def known(loadable: Loadable, target: Target) -> Estimate:
    return estimate(loadable, target, memory_of(target))


@pytest.mark.parametrize(
    ("name", "latency", "bandwidth"), [("nv_small", 120, 5.0), ("nv_small_256", 90, 4.0), ("nv_medium_512", 300, 3.3)]
)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_what_made_the_times_is_found(name: str, latency: int, bandwidth: float, noise: float) -> None:
    target = TARGETS[name]
    board = estimate(lenet(name), target, memory_of(target, latency=latency, bandwidth=bandwidth))
    found = fit(known(lenet(name), target), times_of(board, noise))
    assert found.latency.value == pytest.approx(latency, rel=0.001 + noise, abs=0.5 + 150 * noise)
    assert found.bandwidth.value == pytest.approx(bandwidth, rel=0.001 + 2 * noise)
    assert found.latency.determined
    assert found.bandwidth.determined
    assert found.error <= 2 * noise + 1e-6
    assert found.notes == ()
    assert (found.memory.read_latency, found.memory.write_bytes) == (found.latency.value, found.bandwidth.value)


@settings(max_examples=6)
@given(st.integers(30, 400), st.floats(0.1, 0.9))
def test_any_memory_is_found_by_times_without_noise(latency: int, share: float) -> None:
    board = estimate(lenet("nv_small"), NV_SMALL, memory_of(NV_SMALL, latency=latency, bandwidth=8 * share))
    found = fit(known(lenet("nv_small"), NV_SMALL), times_of(board))
    assert found.error < 0.002
    assert not found.bandwidth.determined or found.bandwidth.value == pytest.approx(8 * share, rel=0.03)


def test_one_wild_time_does_not_matter() -> None:
    board = estimate(lenet("nv_small"), NV_SMALL, memory_of(NV_SMALL, latency=120, bandwidth=5.0))
    times = times_of(board)
    times[2] *= 3
    found = fit(known(lenet("nv_small"), NV_SMALL), times)
    assert found.latency.value == pytest.approx(120, abs=3)
    assert found.bandwidth.value == pytest.approx(5.0, rel=0.02)
    assert max(found.residuals, key=lambda one: abs(one.error)).operation == 2


def test_what_the_times_do_not_determine_is_said() -> None:
    """Pooling on nv_small computes a value a cycle: so slow that memory may have any speed beyond that."""
    rows = known(lenet("nv_small"), NV_SMALL)
    times = {number: cycles for number, cycles in times_of(rows).items() if number in (2, 5)}
    found = fit(rows, times)
    assert not found.bandwidth.determined
    assert any("do not determine the bandwidth" in note for note in found.notes)


def test_times_of_something_else_are_said() -> None:
    rows = known(lenet("nv_large"), NV_LARGE)
    times = {number: 7.0 + number for number in times_of(rows)}
    found = fit(rows, times)
    assert found.error > 0.1
    assert any("half of the times" in note for note in found.notes)


def test_one_time_is_too_few() -> None:
    with pytest.raises(MeasurementError, match="two operations or more"):
        fit(known(lenet("nv_small"), NV_SMALL), {0: 1000.0})


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("op\tcycles", "0\t26000", "2\t13,960.5"), {0: 26000.0, 2: 13960.5}),
        # Its SDP's number says the same convolution; other columns are left alone.
        (("name\top\tus", "first\t1\t26", "second\t2\t13.96"), {0: 26e-6 * 5e8, 2: 13.96e-6 * 5e8}),
        (("ms\top", "0.5\t3"), {3: 0.5e-3 * 5e8}),
        (("layer\tcycles", "conv1\t26000", " pool1 \t13960"), {0: 26000.0, 2: 13960.0}),
    ],
)
def test_files_of_times(tmp_path: Path, lines: tuple[str, ...], expected: dict[int, float]) -> None:
    rows = estimate(lenet("nv_small"), NV_SMALL, memory_of(NV_SMALL, clock=5e8))
    assert read_measured(written(tmp_path / "times.tsv", *lines), rows, LAYERS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "columns none; expected one of op, layer"),
        (("op\tseconds", "0\t1"), "columns op, seconds; expected one of cycles, us, ms"),
        (("op,cycles", "0,1"), "columns op,cycles; expected one of op, layer, between tabs"),
        (("op\tcycles\tus", "0\t1\t1"), "expected one of cycles, us, ms"),
        (("op\tcycles", "0\t1000", "99\t5"), r"line 3: op '99', expected one of 0, 1, 2"),
        (("op\tcycles", "0"), "line 2: cycles None, expected a number above 0"),
        (("op\tcycles", "0\tfast"), "line 2: cycles 'fast', expected a number above 0"),
        (("op\tcycles", "0\t-3"), "expected a number above 0"),
        (("op\tcycles", "0\tnan"), "expected a number above 0"),
        (("op\tcycles", "0\t1000", "1\t1000"), "line 3: a second time of operations 0, 1, which run together"),
        (("op\tcycles", "10\t1000"), "line 2: the processor computes op 10; leave the line out"),
        (("layer\tcycles", "conv9\t1000"), "line 2: layer 'conv9', expected one of conv"),
    ],
)
def test_mistakes_in_files_of_times(tmp_path: Path, lines: tuple[str, ...], says: str) -> None:
    rows = known(lenet("nv_small"), NV_SMALL)
    with pytest.raises(MeasurementError, match=says):
        read_measured(written(tmp_path / "times.tsv", *lines), rows, LAYERS)


def test_layers_need_their_report(tmp_path: Path) -> None:
    path = written(tmp_path / "times.tsv", "layer\tcycles", "conv1\t1000")
    with pytest.raises(MeasurementError, match="give --report"):
        read_measured(path, known(lenet("nv_small"), NV_SMALL))


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "times.tsv"
    path.write_bytes(b"\xff\xfe\x00op")
    with pytest.raises(MeasurementError, match="not a readable table"):
        read_measured(path, known(lenet("nv_small"), NV_SMALL))
