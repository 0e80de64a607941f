"""The profiles: Snakemake and its plugins know every key and take every value, and groups can be ordered."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from tests.conftest import REPOSITORY
from tests.sweeps import plan

PROFILES = {path.parent.name: path for path in sorted(REPOSITORY.glob("profiles/*/profile.yaml"))}
PLUGINS = {
    "default": [],
    "slurm": ["snakemake_executor_plugin_slurm"],
    "kubernetes": ["snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_s3"],
}


def settings_of(profile: str) -> dict[str, Any]:
    return yaml.safe_load(PROFILES[profile].read_text())


def groups_of(profile: str) -> dict[str, str]:
    return dict(entry.split("=") for entry in settings_of(profile).get("groups", []))


def test_every_profile_is_known_here() -> None:
    assert set(PROFILES) == set(PLUGINS)


@pytest.mark.parametrize("profile", PROFILES)
def test_snakemake_takes_the_profile(profile: str) -> None:
    """Its parser refuses a key that neither it nor a plugin has, and a value that is of another kind."""
    for plugin in PLUGINS[profile]:
        pytest.importorskip(plugin, reason=f"{plugin.replace('_', '-')} is not installed")
    arguments = get_argument_parser([PROFILES[profile].parent]).parse_args([])
    assert arguments.executor == settings_of(profile).get("executor")
    if arguments.executor:
        registry = ExecutorPluginRegistry()
        registry.collect_plugins()
        registry.get_plugin(arguments.executor).get_settings(arguments)  # It checks what it is given.


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_that_was_killed_goes_on_in_every_profile(profile: str) -> None:
    """And the board of nvdla_runtime has one job at a time."""
    found = settings_of(profile)
    assert (found["rerun-incomplete"], found["nolock"], found["show-failed-logs"]) == (True, True, True)
    assert found["resources"] == ["nvdla_device=1"]
    assert "default-resources" not in found, "each rule says what it needs"


@pytest.mark.parametrize("profile", PROFILES)
def test_groups_are_of_rules(profile: str) -> None:
    """What has a job for each shard and reads what a group makes stays alone, or a group would have all of them."""
    text = "".join(path.read_text() for path in REPOSITORY.glob("rules/*.smk"))
    groups = groups_of(profile)
    assert set(groups) <= set(re.findall(r"^rule (\w+):", text, re.MULTILINE))
    assert not {"run_loadable", "run_on_device", "run_quantized", "score_variant", "compare_case"} & set(groups)


FIRST = {
    *("select_test_images", "select_calibration_images", "take_scales"),
    *("compile_loadable", "compile_with_nvdla_compiler", "summarize_sweep", "plot_figures"),
}
"""Rules of groups that read nothing which their group makes."""


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_the_memory_of_a_group_is_known_when_it_is_submitted(profile: str) -> None:
    """Snakemake leaves out jobs whose memory it cannot reckon yet, and the group would be killed."""
    said = {entry.partition(":")[0]: entry.partition("=")[2] for entry in settings_of(profile)["set-resources"]}
    assert set(said) == set(groups_of(profile)) - FIRST
    assert all(value.endswith(" * 2 ** (attempt - 1)") for value in said.values())


def test_both_clusters_have_the_same_groups() -> None:
    assert groups_of("slurm") == groups_of("kubernetes") != {}


@pytest.mark.parametrize("method", ["entropy", "tensorrt-entropy"])
def test_snakemake_can_order_the_groups(finished: Path, tiny_config: dict[str, Any], method: str) -> None:
    """It refuses a group that waits for a job which waits for the group; here with real tools, and three shards."""
    config = copy.deepcopy(tiny_config)
    config["shards"] = 3
    config["calibrators"]["entropy"] = {"method": method, "images": 16, "batch_size": 8}
    config["backends"] = {"nvdla_compiler": {"path": "/bin/true"}, "tensorrt": {}}
    config["variants"].append(
        {"precision": "int8", "mode": "per-kernel", "calibrator": "minmax", "compiler": "nvdla_compiler"}
    )
    config["verify"] = {"images": 4}  # Otherwise than what has run: every job is to run again.
    alone = plan(finished, config)
    assert plan(finished, config, groups_of("slurm")) == alone
