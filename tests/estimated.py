"""Shipped networks, compiled to be estimated: scales change no cycle, so all are alike."""

from functools import cache
from pathlib import Path

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.lowering.price import Objective
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.network.files import read_model
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.table.table import CalibrationTable

RESOURCES = Path(__file__).resolve().parents[1] / "resources"


def compiled(network: Network, target: str) -> Loadable:
    """Return a network's int8 loadable for a target, per-filter."""
    prepared = prepare(network, "fold")
    table = CalibrationTable(dict.fromkeys(prepared.tensors, 0.05))
    mode = QuantizationMode.PER_FILTER
    # As those that were measured.
    divided = Objective.BYTES
    compilation = compile_network(prepared, table, TARGETS[target], Precision.INT8, mode, objective=divided)
    return parse_loadable(compilation.data)


def shipped(folder: str) -> Network:
    """Return a network of ``resources``."""
    files = RESOURCES / folder
    return read_model([files / "deploy.prototxt", next(files.glob("*.caffemodel"))])


@cache
def lenet(target: str) -> Loadable:
    """Return the shipped LeNet's loadable."""
    return compiled(shipped("lenet-mnist"), target)


@cache
def resnet20(target: str) -> Loadable:
    """Return the loadable of the shipped ResNet-20 for Fashion-MNIST."""
    return compiled(shipped("resnet20-fashion-mnist"), target)
