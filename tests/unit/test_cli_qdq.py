"""``nvdla-quant calibrate --method qdq``."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from nvdla_quant.table.cache import read_cache
from tests.qdq import ACTIVATION_SCALE, INPUT_SCALE, SCORE_SCALE, static
from tests.unit.test_cli import cli, fail


@pytest.fixture
def given(tmp_path: Path) -> list[object]:
    """Return the command on a symmetric model, its cache ``out.cache``."""
    onnx.save(static(), tmp_path / "net.onnx")
    onnx.save(static(symmetric=False), tmp_path / "uneven.onnx")
    return ["calibrate", "--onnx", tmp_path / "net.onnx", "--method", "qdq", "--output", tmp_path / "out.cache"]


def test_the_scales_of_the_file(given: list[object], tmp_path: Path) -> None:
    result = cli(*given)
    assert result.returncode == 0, result.stderr
    scales = {"data": INPUT_SCALE, **dict.fromkeys(("sum", "act", "pool"), ACTIVATION_SCALE), "scores": SCORE_SCALE}
    assert read_cache(tmp_path / "out.cache").scales == scales


def test_ranges_that_are_not_symmetric(given: list[object], tmp_path: Path) -> None:
    """Refused as one line, or covered and listed."""
    given[2] = tmp_path / "uneven.onnx"
    assert "4 of 4 tensors are not quantized to int8 around 0" in fail(*given)
    assert not (tmp_path / "out.cache").exists()
    result = cli(*given, "--qdq-ranges", "cover")
    assert result.returncode == 0, result.stderr
    assert "note: 'act': 0.125492126, cover: holds INT8 with zero point -128, 0 to 15.9375" in result.stderr
    assert read_cache(tmp_path / "out.cache").scales["act"] == pytest.approx(255 * ACTIVATION_SCALE / 127)


def test_options_that_mean_nothing(given: list[object], tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((1, 1, 8, 8), np.float32))
    measured = [*given[:4], "minmax", *given[5:]]
    assert "--percentile with --method qdq" in fail(*given, "--percentile", "99")
    assert "--images with --method qdq" in fail(*given, "--images", tmp_path / "images.npy")
    assert "no images: --method minmax measures them" in fail(*measured)
    assert "--qdq-ranges goes with --method qdq" in fail(*measured, "--qdq-ranges", "cover")
    assert "by --onnx" in fail("calibrate", *given[3:])
