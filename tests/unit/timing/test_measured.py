"""The model beside what NVIDIA's RTL took: the committed numbers, and where they are, the loadables."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pytest

from nvdla_quant.estimation.estimate import Estimate
from nvdla_quant.timing.cost import cost, unmeasured_setting
from tests.measured_cycles import Setting, golden_settings, read_measurements

MEASUREMENTS = read_measurements()
MANY = 50
BOUNDS: Mapping[str, tuple[float, float]] = {
    "nv_small": (0.005, 0.03),
    "nv_small_256": (0.005, 0.03),
    "nv_medium_512": (0.01, 0.06),
    "nv_large": (0.01, 0.06),
}
"""Largest median, and ninth decile, of the errors of a setting with many operations."""
BOUND_OF_FEW = 0.02
"""Largest median of the others."""


def assert_close(setting: Setting, errors: list[float]) -> None:
    if len(errors) < MANY:
        assert median(errors) <= BOUND_OF_FEW, setting.name
        return
    middle, most = BOUNDS[setting.target.name]
    assert median(errors) <= middle, setting.name
    assert sorted(errors)[int(0.9 * len(errors))] <= most, setting.name


@pytest.mark.parametrize("setting", MEASUREMENTS.settings, ids=lambda setting: setting.name)
def test_operations_take_what_was_measured(setting: Setting) -> None:
    works = MEASUREMENTS.works[setting.target.name]
    costs = {name: cost(setting.target, setting.memory, works[name]).cycles for name in setting.cycles}
    errors = [abs(costs[name] / cycles - 1) for name, cycles in setting.cycles.items() if name not in setting.late]
    assert_close(setting, errors)
    # One is slowed by the convolution that loads beside it.
    assert max(errors) < 0.08


def test_all_settings_are_within_what_the_model_calls_measured() -> None:
    assert len(MEASUREMENTS.settings) == 19
    for setting in MEASUREMENTS.settings:
        assert unmeasured_setting(setting.target, setting.memory) == (), setting.name
        for name in setting.cycles:
            found = cost(setting.target, setting.memory, MEASUREMENTS.works[setting.target.name][name])
            assert found.extrapolated == (), name


@pytest.fixture(scope="module")
def golden(shared: Path) -> list[tuple[Setting, Mapping[str, Estimate]]]:
    return list(golden_settings(shared / "golden" / "cycles"))


def test_loadables_take_what_was_measured(golden: list[tuple[Setting, Mapping[str, Estimate]]]) -> None:
    """Operations in their network, those that wait for others too, and networks with the firmware's part."""
    assert len(golden) == 19
    for setting, estimates in golden:
        rows = {f"{name}/op{row.operation}": row for name, one in estimates.items() for row in one.rows}
        assert set(rows) >= set(setting.cycles)
        errors = {name: abs(rows[name].cycles / cycles - 1) for name, cycles in setting.cycles.items()}
        assert_close(setting, list(errors.values()))
        assert all(errors[name] < 0.01 for name in setting.late), setting.name
        networks = [abs(estimates[name].cycles / cycles - 1) for name, cycles in setting.networks.items()]
        assert median(networks) <= 0.005, setting.name
        assert max(networks) <= 0.02, setting.name


def test_the_committed_numbers_are_the_golden_ones(golden: list[tuple[Setting, Mapping[str, Estimate]]]) -> None:
    for committed, (found, estimates) in zip(MEASUREMENTS.settings, golden, strict=True):
        assert (committed.target, committed.memory, committed.cycles) == (found.target, found.memory, found.cycles)
        works = MEASUREMENTS.works[found.target.name]
        for name, one in estimates.items():
            for row in one.rows:
                operation = f"{name}/op{row.operation}"
                if operation in found.cycles and operation not in found.late:
                    assert row.works == (works[operation],)
