"""The ONNX twins of the shipped Caffe models: the same scores, scales and loadables, whoever reads them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import pytest

from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.execution.fp32 import scores
from nvdla_quant.hardware.targets import COMPILED_PRECISIONS, Precision
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.files import read_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.written import as_onnx, write_onnx
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.fix import fix_table
from nvdla_quant.table.table import CalibrationTable
from tests.conftest import REPOSITORY
from tests.profiles import targets

MODELS = sorted(path.parent for path in (REPOSITORY / "resources").glob("*/deploy.prototxt"))
CALIBRATORS = (Calibrator("entropy", 4), Calibrator("minmax", 4), Calibrator("percentile", 4, 99.9))
"""For two batches."""


@dataclass(frozen=True)
class Twin:
    """A network of a Caffe model, or of the ONNX file that it was converted to."""

    network: Network

    @cached_property
    def images(self) -> np.ndarray:
        shape = self.network.only_input.chw
        return np.random.default_rng(0).uniform(0, 1, (8, *shape)).astype(np.float32)

    @cached_property
    def prepared(self) -> Network:
        return prepare(self.network, "fold")

    def table(self, calibrator: Calibrator) -> CalibrationTable:
        return fix_table(self.network, self.prepared, calibrate(self.network, self.images, calibrator))[0]


@pytest.fixture(scope="module", params=MODELS, ids=lambda folder: folder.name)
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Twin, Twin, Twin]:
    """Return the Caffe model, its twin, and the twin read as a file of unknown origin."""
    (weights,) = request.param.glob("*.caffemodel")
    caffe = read_network(request.param / "deploy.prototxt", weights)
    ours, anybody = (tmp_path_factory.mktemp("twin") / name for name in ("ours.onnx", "anybody.onnx"))
    write_onnx(as_onnx(caffe), ours)
    model = onnx.load(ours)
    del model.metadata_props[:]
    onnx.save(model, anybody)
    return Twin(caffe), Twin(read_model([ours])), Twin(read_model([anybody]))


def test_all_shipped_models_are_here() -> None:
    assert len(MODELS) == 5


def test_the_same_scores(twins: tuple[Twin, Twin, Twin]) -> None:
    caffe, *others = twins
    expected = scores(caffe.network, caffe.images)
    for twin in others:
        np.testing.assert_allclose(scores(twin.network, caffe.images), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda calibrator: calibrator.method)
def test_the_same_scales(twins: tuple[Twin, Twin, Twin], calibrator: Calibrator) -> None:
    caffe, *others = twins
    expected = caffe.table(calibrator).scales
    for twin in others:
        assert dict(twin.table(calibrator).scales) == dict(expected)


def test_the_same_loadables(twins: tuple[Twin, Twin, Twin]) -> None:
    """For every precision and mode of targets that between them have every atom and unit; in the long form of all."""
    caffe, *others = twins
    table = caffe.table(CALIBRATORS[1])
    for target in targets().values():
        for precision in [one for one in COMPILED_PRECISIONS if one in target.precisions]:
            for mode in ("per-kernel", "per-filter") if precision is Precision.INT8 else (None,):
                options = (table if mode else None), target, precision, mode
                expected = compile_network(caffe.prepared, *options).data
                for twin in others:
                    assert compile_network(twin.prepared, *options).data == expected, (target.name, precision, mode)
