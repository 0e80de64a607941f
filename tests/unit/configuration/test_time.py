"""What the configuration says of time: memory, clock, and the accuracy to keep."""

from typing import Any

import pytest

from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.schema import load_schema
from nvdla_quant.configuration.targets import DEFAULT_CLOCK
from nvdla_quant.errors import ConfigError
from nvdla_quant.timing import memory


def settings(config: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return load_configuration({**config, **changed}).settings


def test_defaults(tiny_config: dict[str, Any]) -> None:
    found = settings(tiny_config)
    assert found["memory"] == {"latency": 40, "shared": False, "host_gap": 0}
    assert found["clock"] == {"nv_full": 1_000_000_000, "nv_small": 1_000_000_000}
    assert (found["keep"], found["cpu_cycles"]) == (99.0, 0)


def test_defaults_are_those_of_an_estimate() -> None:
    properties = load_schema()["properties"]
    assert properties["clock"]["default"] == DEFAULT_CLOCK == memory.DEFAULT_CLOCK
    assert properties["memory"]["properties"]["latency"]["default"] == memory.DEFAULT_LATENCY


@pytest.mark.parametrize(
    ("given", "meant"), [("99 %", 99.0), ("99.5%", 99.5), (97, 97.0), (99.9, 99.9), ("100 %", 100.0)]
)
def test_the_accuracy_to_keep(given: object, meant: float, tiny_config: dict[str, Any]) -> None:
    assert settings(tiny_config, keep=given)["keep"] == meant


def test_a_clock_of_all_and_clocks_of_some(tiny_config: dict[str, Any]) -> None:
    assert settings(tiny_config, clock=2e8)["clock"] == {"nv_full": 2e8, "nv_small": 2e8}
    assert settings(tiny_config, clock={"nv_small": 1e8})["clock"] == {"nv_full": 1_000_000_000, "nv_small": 1e8}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"keep": 0.99}, r"keep: 0\.99 is less than the minimum of 1 \(in percent, 1 to 100; `99 %` or 99\)"),
        ({"keep": 101}, "keep: 101 is greater"),
        ({"keep": "most"}, r"keep: 'most' .*in percent, 1 to 100"),
        ({"keep": "120 %"}, r"keep: '120 %' .*in percent, 1 to 100"),
        ({"clock": "1e9"}, "clock: '1e9' .*YAML reads 1e9 as text; 1000000000"),
        ({"clock": {"nv_small": "1e9"}}, r"clock\.nv_small: '1e9' .*YAML reads 1e9 as text"),
        ({"clock": 0}, "clock: 0 is less than the minimum of 1"),
        ({"clock": {"nv_smal": 1e9}}, "clock: there is no target 'nv_smal'"),
        ({"memory": {"latncy": 9}}, r"memory: unknown key 'latncy' \(did you mean 'latency'\?\)"),
        ({"memory": {"bandwidth": 0}}, r"memory\.bandwidth: 0 is less than or equal to the minimum of 0"),
        ({"memory": {"outstanding": 0}}, r"memory\.outstanding: 0 is less"),
        ({"cpu_cycles": -1}, "cpu_cycles: -1 is less"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], said: str, tiny_config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(tiny_config, **changed)
