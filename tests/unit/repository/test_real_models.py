"""The benchmark of others' models, without their files."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_models import compared, main, probabilities
from benchmarks.tflite_scores import quantized
from tests.conftest import REPOSITORY


def test_absent_files_are_said_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.split("\n\n")[1:]
    assert [line.split(":")[1].strip() for line in lines] == ["mnist", "open-nsfw", "efficientnet", "mlperf-tiny"]
    assert lines[0] == "Left out: mnist: no mnist-conv/model.onnx in the folder."


def test_cells_beside_fp32() -> None:
    reference = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    labels = np.array([1, 0, 0, 0])
    # A constant for each class changes no correlation, a tie is half a hit.
    assert compared(reference, reference, labels) == ["75.00", "75.00", "100.00", "1.00000", "0.0000"]
    cells = compared(reference + np.array([1.0, 0.0]), reference, labels)
    assert cells[:4] == ["75.00", "62.50", "87.50", "1.00000"]
    assert compared(reference, reference, None)[:2] == ["", ""]


def test_probabilities_of_large_scores_are_finite() -> None:
    assert probabilities(np.array([[1e4, 0.0], [0.0, 0.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_images_as_a_tflite_file_reads_them() -> None:
    images = np.array([-1.0, -0.0025, 0.0025, 0.0075, 0.99, 1.5], np.float32)
    assert quantized(images, np.int8, 0.005, -1).tolist() == [-128, -1, -1, 1, 127, 127]
    assert quantized(images, np.float32, 0.0, 0).tolist() == images.tolist()
