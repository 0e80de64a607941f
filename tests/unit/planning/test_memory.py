"""What each rule asks for grows with what its jobs read, and doubles when they are tried again."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from snakemake.iocontainers import InputFiles, Wildcards

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.network.files import write_model
from nvdla_quant.planning.memory import FLOAT, HELD, NEEDS, Memory, Need, Sizes, megabytes
from nvdla_quant.planning.sizes import size_of
from nvdla_quant.quantization.refine import ROOM
from tests.sweeps import tiny_network

STREAMED = {"download_file", "take_member"}
"""Rules whose jobs hold a piece of a file at a time."""
KINDS = ("network", "image", "arrays", "pixels", "files", "largest", "held")


def test_every_rule_has_its_function(repository: Path) -> None:
    text = "".join(path.read_text() for path in (repository / "rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n(?:(?!^rule ).*\n)*?        mem_mb=(.*),$", text, re.MULTILINE))
    assert rules == {name: f'MEMORY.of("{name}")' for name in NEEDS}


@pytest.mark.parametrize("rule", sorted(set(NEEDS) - STREAMED))
def test_what_a_rule_asks_for_depends_on_its_input(rule: str) -> None:
    small = Sizes(count=1)
    large = Sizes(**dict.fromkeys(KINDS, 10**9), count=10_000)
    assert megabytes(NEEDS[rule], large) > megabytes(NEEDS[rule], small) + 100


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_bytes_counts(kind: str) -> None:
    need = replace(Need(100), **{kind: 4})
    assert megabytes(need, Sizes()) == 200 + 125 + 5  # In steps of ten.
    assert megabytes(need, Sizes(**{kind: 100_000_000})) == 200 + 125 + 500 + 5
    assert megabytes(need, Sizes(**{kind: 100_000_000}), attempt=3) == 4 * 830


def test_a_refinement_holds_what_is_planned() -> None:
    """Planning does not import what computes."""
    assert HELD == ROOM


def test_each_thread_has_an_image() -> None:
    need, sizes = Need(0, image=1), Sizes(image=80_000_000)
    assert [megabytes(need, sizes, threads) for threads in (1, 2, 4)] == [300, 400, 600]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: dict[str, object]) -> Memory:
    """Of the tiny sweep, with its files below the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("inputs").mkdir()
    write_model(tiny_network(0), ["inputs/deploy.prototxt", "inputs/tiny.caffemodel"])
    np.savez("inputs/noise.npz", images=np.zeros((48, 8, 8), np.uint8), labels=np.zeros(48, np.int64))
    configuration = load_configuration(tiny_config)
    return Memory(Job(configuration, Artefacts(configuration, "results")))


def test_sizes_of_a_calibration(memory: Memory) -> None:
    np.savez_compressed("images.npz", pixels=np.zeros((16, 1, 8, 8), np.uint8))
    files = ["inputs/deploy.prototxt", "inputs/tiny.caffemodel"]
    given = InputFiles(fromdict={"network": files, "images": "images.npz"})
    wildcards = Wildcards(fromdict={"model": "tiny", "dataset": "noise", "calibrator": "entropy"})
    sizes = memory.sizes(NEEDS["calibrate"], wildcards, given)
    assert sizes.network == sum(Path(path).stat().st_size for path in files)
    assert sizes.image == FLOAT * size_of(tiny_network(0)).tensors
    assert 16 * 64 <= sizes.arrays < 16 * 64 + 200
    assert (sizes.files, sizes.pixels, sizes.count) == (0, 0, 3)
    asked = memory.of("calibrate")
    assert asked(wildcards, given, 1, 2) == megabytes(NEEDS["calibrate"], sizes, 2)
    assert asked(wildcards, given, 2, 2) == 2 * asked(wildcards, given, 1, 2)


def test_sizes_of_chosen_images(memory: Memory) -> None:
    given = InputFiles(fromdict={"files": ["inputs/noise.npz"], "network": ["inputs/deploy.prototxt"]})
    case = {"model": "tiny", "dataset": "noise"}
    calibration = memory.sizes(
        NEEDS["select_calibration_images"], Wildcards(fromdict={**case, "calibrator": "entropy"}), given
    )
    test = memory.sizes(NEEDS["select_test_images"], Wildcards(fromdict={**case, "shard": "0"}), given)
    assert (calibration.pixels, test.pixels) == (16 * 64, 48 * 64)
    assert calibration.files > 48 * 64


def test_an_input_that_is_not_there_yet_is_named(memory: Memory) -> None:
    """Snakemake then says that the number is to be determined."""
    given = InputFiles(fromdict={"loadable": "absent.nvdla", "images": "absent.npz"})
    wildcards = Wildcards(fromdict={"model": "tiny", "dataset": "noise"})
    with pytest.raises(FileNotFoundError) as caught:
        memory.of("run_loadable")(wildcards, given, 1, 1)
    assert caught.value.filename in given
