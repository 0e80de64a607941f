"""The denoising network that ships: its structure, its noise, and how much of that it takes away, on every target."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.emulator.run import run
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.images.datasets import IdxRecord, open_dataset, read_idx
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.table.fix import fix_table
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.verified import Case, case_of, correlation

SCALE = np.float32(1 / 256)
TEST, CALIBRATION = (f"{part}-images-idx3-ubyte.xz" for part in ("t10k", "calibration"))
NOISY, DENOISED = 17.92, 24.02
"""PSNR of the test images in dB, as PyTorch measured when the network was trained (training/README.md)."""
MADE = [
    ("nv_small", Precision.INT8, QuantizationMode.PER_KERNEL),
    ("nv_small", Precision.INT8, QuantizationMode.PER_FILTER),
    ("nv_full", Precision.INT8, QuantizationMode.PER_KERNEL),
    ("nv_full", Precision.INT8, QuantizationMode.PER_FILTER),
    ("nv_full", Precision.FP16, None),
]


@dataclass(frozen=True)
class Shipped:
    """The network; noisy pixels to test and to calibrate on, and clean ones of both, all (n, 28, 28)."""

    files: tuple[Path, Path]
    network: Network
    test: np.ndarray
    calibration: np.ndarray
    clean: np.ndarray
    clean_calibration: np.ndarray


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Shipped:
    resources = repository / "resources"
    files = tuple(resources / "denoise-fashion-mnist" / name for name in ("deploy.prototxt", "denoise.caffemodel"))
    test, calibration, clean, clean_calibration = (
        read_idx(resources / folder / name, "images", 3)
        for folder in ("noisy-fashion-mnist", "fashion-mnist")
        for name in (TEST, CALIBRATION)
    )
    return Shipped(
        files, read_network(*files), test, calibration, clean[: len(test)], clean_calibration[: len(calibration)]
    )


def as_input(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, None].astype(np.float32) * SCALE


def psnr(images: np.ndarray, clean: np.ndarray) -> float:
    """Mean over the images, in dB, of pixels from 0 to 255."""
    errors = np.square(images.astype(np.float64) - clean).mean(axis=(1, 2))
    return float((10 * np.log10(255**2 / errors)).mean())


def test_structure(shipped: Shipped) -> None:
    """Halved twice, enlarged twice, with a ReLU behind each: 22,513 parameters."""
    network = shipped.network
    learned = [layer for layer in network.layers if layer.kind != "ReLU"]
    assert [(one.name, one.kind, network.tensors[one.name].shape) for one in learned] == [
        ("conv1", "Convolution", (16, 14, 14)),
        ("conv2", "Convolution", (32, 7, 7)),
        ("conv3", "Convolution", (32, 7, 7)),
        ("deconv1", "Deconvolution", (16, 14, 14)),
        ("deconv2", "Deconvolution", (1, 28, 28)),
    ]
    assert [layer.inputs for layer in network.layers if layer.kind == "ReLU"] == [(one.name,) for one in learned]
    assert network.only_output.blob == "denoised"
    # 16 * 9 + 32 * 16 * 9 + 32 * 32 * 9 + 32 * 16 * 16 + 16 * 16, and a bias each.
    assert sum(one.operation.weights.size + one.operation.bias.size for one in learned) == 22_416 + 97


def test_images_have_no_labels_and_52_levels(shipped: Shipped, repository: Path) -> None:
    dataset = open_dataset(IdxRecord(repository / "resources" / "noisy-fashion-mnist" / TEST))
    assert (len(dataset), dataset.labels) == (120, None)
    assert (len(shipped.test), len(shipped.calibration)) == (120, 40)
    for pixels in (shipped.test, shipped.calibration):
        assert np.unique(pixels).tolist() == list(range(0, 256, 5))


def test_noise_is_normal_with_a_deviation_of_40(shipped: Shipped) -> None:
    """Of pixels that it does not clip, away from black and white by 2.75 deviations.

    Rounding to steps of 5 adds a variance of 5 * 5 / 12. Tolerances are four standard errors.
    """
    noise = np.concatenate(
        [
            (noisy.astype(float) - clean)[(clean >= 110) & (clean <= 145)]
            for noisy, clean in ((shipped.test, shipped.clean), (shipped.calibration, shipped.clean_calibration))
        ]
    )
    deviation = np.sqrt(40**2 + 5**2 / 12)
    assert abs(noise.mean()) < 4 * deviation / np.sqrt(len(noise))
    assert abs(noise.std() - deviation) < 4 * deviation / np.sqrt(2 * len(noise))


def test_psnr_is_the_one_that_was_measured(shipped: Shipped) -> None:
    denoised = Reference(shipped.network).run(as_input(shipped.test))["denoised"][:, 0]
    assert psnr(shipped.test, shipped.clean) == pytest.approx(NOISY, abs=0.006)
    assert psnr(denoised / SCALE, shipped.clean) == pytest.approx(DENOISED, abs=0.006)


def test_opencvs_caffe_importer_agrees_on_denoised_images(shipped: Shipped) -> None:
    cv2 = pytest.importorskip("cv2")
    network = cv2.dnn.readNetFromCaffe(*map(str, shipped.files))
    inputs = as_input(shipped.test[:50])
    network.setInput(inputs)
    np.testing.assert_allclose(Reference(shipped.network).run(inputs)["denoised"], network.forward(), atol=2e-5)


@pytest.mark.parametrize("made", MADE, ids=lambda made: "-".join(map(str, filter(None, made))))
def test_loadables_denoise_as_fp32_does(shipped: Shipped, made: tuple[str, Precision, QuantizationMode | None]) -> None:
    """Issue 19 asks for a correlation of 0.99 per-filter; per-kernel reaches it too."""
    target, *how = made
    network, images = shipped.network, as_input(shipped.test[:24])
    table, _ = fix_table(network, network, calibrate(network, as_input(shipped.calibration), Calibrator("entropy", 20)))
    case: Case = case_of(network, table, images, TARGETS[target], *how)
    verdict = case.verify().verdict
    assert (verdict.verdict, verdict.cause) == (Judgement.OK, None)
    values = run(case.program, case.inputs(case.program))
    assert correlation(values, Reference(network).run(images)["denoised"]) > 0.99
