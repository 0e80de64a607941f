"""Targets of one's own: records of the configuration, what jobs get of them, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.errors import ConfigError
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import NV_SMALL_256
from tests.specifications import text_of, values_of


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "soc.spec"
    path.write_text(text_of(values_of(NV_SMALL_256) | {"CBUF_BANK_NUMBER": "16"}))
    return path


def test_jobs_get_the_record_and_depend_on_the_file(tiny_config: dict[str, Any], spec: Path) -> None:
    own = {"name": "my-soc", "spec": str(spec)}
    found = load_configuration({**tiny_config, "targets": ["nv_small", own]})
    assert found.settings["targets"] == ["nv_small", "my-soc"]
    assert {run.target for run in found.runs} == {"nv_small", "my-soc"}
    artefacts = Artefacts(found, "results")
    assert artefacts.inputs[-1] == str(spec)
    job = Job(found, artefacts)
    shipped, mine = (SimpleNamespace(target=name) for name in ("nv_small", "my-soc"))
    assert (job.target(shipped), job.specification(shipped)) == ("nv_small", [])  # type: ignore[arg-type]
    assert (job.target(mine), job.specification(mine)) == (own, str(spec))  # type: ignore[arg-type]
    assert target_of(job.target(mine)).cbuf_banks == 16  # type: ignore[arg-type]


def test_a_specification_that_is_not_there_is_left_to_snakemake(tiny_config: dict[str, Any]) -> None:
    record = {"name": "own", "spec": "nowhere.spec"}
    assert load_configuration({**tiny_config, "targets": [record]}).specs == {"own": "nowhere.spec"}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([{"name": "nv_small", "spec": "x.spec"}], r"targets\[0\].name: 'nv_small' is the name of a shipped target"),
        ([{"name": "a", "spec": "x"}, {"name": "a", "spec": "y"}], r"targets\[1\].name: 'a' is the name of another"),
        ([{"name": "a b", "spec": "x.spec"}], r"targets\[0\].name: 'a b' is no name that can be used here"),
        ([{"name": "a"}], r"targets\[0\]: missing 'spec'"),
        (
            ["my-soc"],
            r"targets\[0\]: there is no target 'my-soc', but nv_full, .* stands in `targets`",
        ),
    ],
)
def test_records_that_are_refused(tiny_config: dict[str, Any], targets: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_configuration({**tiny_config, "targets": targets})


def test_a_specification_that_is_not_legal_is_found_before_anything_runs(
    tiny_config: dict[str, Any], spec: Path
) -> None:
    spec.write_text(spec.read_text().replace("CBUF_BANK_WIDTH_32", "CBUF_BANK_WIDTH_64"))
    with pytest.raises(ConfigError, match=r"config: targets\[0\].spec: .*soc.spec: CBUF_BANK_WIDTH_64 with"):
        load_configuration({**tiny_config, "targets": [{"name": "own", "spec": str(spec)}]})


def test_variants_name_targets_that_there_are(tiny_config: dict[str, Any]) -> None:
    variant = {**tiny_config["variants"][0], "targets": ["nv_smal"]}
    with pytest.raises(ConfigError, match=r"variants\[0\].targets: there is no target 'nv_smal'"):
        load_configuration({**tiny_config, "variants": [variant]})


def test_nvidias_compiler_knows_three(tiny_config: dict[str, Any]) -> None:
    variant = {"precision": "int8", "mode": "per-filter", "calibrator": "entropy", "compiler": "nvdla_compiler"}
    backends = {"nvdla_compiler": {"path": "nvdla_compiler"}}
    config = {**tiny_config, "targets": ["nv_medium_512"], "variants": [variant], "backends": backends}
    with pytest.raises(ConfigError, match="nvdla_compiler knows nv_full, nv_large, nv_small, and not nv_medium_512"):
        load_configuration(config)
