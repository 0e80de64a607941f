"""Numbers of firmware.md, loadable.md and calibration-table.md."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.lowering.operations import ConvolutionStep
from nvdla_quant.compiler.numbers.quantize import quantize_convolution
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.layout import Layouts
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import MemoryFlags
from nvdla_quant.loadable.structs import DependencyEvent, Engine
from nvdla_quant.loadable.tasks import TaskMemory, static_bytes
from nvdla_quant.network.graph import (
    BatchNorm,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    ReLU,
    Scale,
    Softmax,
    Tensor,
)
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.fusion import fused_end
from nvdla_quant.table.naming import tensor_names
from nvdla_quant.table.table import CalibrationTable
from tests.hardware.examples import example, joined, table

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"


def golden(name: str) -> TaskMemory:
    """Return the first task of a golden loadable."""
    loadable = read_loadable(GOLDEN / name / "loadable.nvdla")
    return TaskMemory(loadable, loadable.tasks[0], static_bytes(loadable), Layouts(False, False))


def event_name(event: int) -> str:
    """Return the name of an event of the firmware."""
    return DependencyEvent(event).name.removeprefix("OP_").lower()


@example
def dependencies() -> str:
    task = golden("resnets-nv-small-int8-perfilter")
    network = task.records(0, structs.NETWORK, 1, "network descriptor")[0]
    count = int(network["num_operations"])
    common = task.records(int(network["dependency_graph_index"]), structs.COMMON_OP, count, "graph")
    rows = []
    for index, entry in enumerate(common[:8]):
        named = [
            f"{Engine(unit).name} {int(to['index'])} ({event_name(int(to['event']))})"
            for unit, to in enumerate(entry["consumers"])
            if to["index"] >= 0
        ]
        parent = entry["fused_parent"]
        fused = f"{int(parent['index'])} (enabled)" if parent["index"] >= 0 else "-"
        rows.append(
            (index, Engine(int(entry["op_type"])).name, int(entry["dependency_count"]), fused, ", ".join(named))
        )
    heads = joined(f"{unit.name} {int(network['op_head'][unit])}" for unit in Engine)
    return f"op_head: {heads}\n" + table(("op", "unit", "waits for", "fused_parent", "consumers"), rows)


@example
def lists() -> str:
    loadable = read_loadable(GOLDEN / "v-conv0-nobias-relu-nv-small-int8-perkernel" / "loadable.nvdla")
    rows = []
    for memory in loadable.memories:
        flags = "+".join(flag.name or "" for flag in type_flags(memory.flags))
        rows.append((memory.id, flags, memory.size, joined(memory.contents)))
    (task,) = loadable.tasks
    tensors = (
        f"tensor {t.name}: memory {t.mem_id}, {t.n} x {t.c} x {t.h} x {t.w}, strides {joined(t.strides[:3])}, "
        f"format {t.data_format}, category {t.data_category}, pixel format {t.pixel_format}"
        for t in loadable.tensors
    )
    moves = (
        f"relocation: address {r.address_id}, {'line' if r.type == 1 else 'surface'} stride "
        f"at byte {r.offset} of memory {r.write_id}"
        for r in loadable.relocations
    )
    text = table(("memory", "flags", "bytes", "contents"), rows)
    return "\n".join([text, f"task 0: address_list {joined(task.address_list)}", *tensors, *moves])


def type_flags(flags: int) -> list[object]:
    """Return the single flags of a memory."""
    return [flag for flag in MemoryFlags if flag and flags & flag]


@example
def struct_sizes() -> str:
    names = ["NETWORK", "COMMON_OP", "CUBE", "CVT", "CONV_OP", "SDP_UNIT", "SDP_OP", "PDP_OP", "CDP_OP", "RUBIK_OP"]
    names += ["BDMA_OP", "CONV_SURFACE", "SDP_SURFACE", "TWO_CUBES", "BDMA_SURFACE", "LUT"]
    names += ["EMU_NETWORK", "EMU_OP", "EMU_BUFFER", "EMU_BUFFERS"]
    rows: list[tuple[object, object]] = [(name, getattr(structs, name).itemsize) for name in names]
    rows += [("OPERATION_BYTES", structs.OPERATION_BYTES), ("SURFACE_BYTES", structs.SURFACE_BYTES)]
    return table(("record", "bytes"), rows)


@example
def older_offsets() -> str:
    rows = []
    for name in ("CUBE", "CONV_SURFACE", "SDP_SURFACE", "TWO_CUBES", "EMU_OP", "EMU_BUFFERS"):
        today = getattr(structs, name)
        older = structs.CONV_SURFACE if name == "CUBE" else today
        changed = structs.OLDER[older]["src_data"] if name == "CUBE" else structs.OLDER[older]
        rows.append((name, today.itemsize, changed.itemsize))
    return table(("record", "today", "older"), rows)


def residual() -> Network:
    """Return a network with in-place layers, a pooling and a sum."""

    def weights(*shape: int) -> NDArray[np.float32]:
        return np.full(shape, 0.01, np.float32)

    ones = np.ones(4, np.float32)
    pairs = (1, 1)
    layers = [
        ("conv1", Convolution(weights(4, 1, 3, 3), None, pad=pairs), ("data",), "conv1"),
        ("bn1", BatchNorm(ones, ones, 1e-5), ("conv1",), "conv1"),
        ("scale1", Scale(ones, ones), ("bn1",), "conv1"),
        ("relu1", ReLU(), ("scale1",), "conv1"),
        ("pool1", Pooling("max", (2, 2), (2, 2)), ("relu1",), "pool1"),
        ("conv2", Convolution(weights(4, 4, 3, 3), ones, pad=pairs), ("pool1",), "conv2"),
        ("sum", Eltwise("sum"), ("conv2", "pool1"), "sum"),
        ("relu2", ReLU(), ("sum",), "sum"),
        ("fc", InnerProduct(weights(10, 4 * 4 * 4), None), ("relu2",), "fc"),
        ("prob", Softmax(), ("fc",), "prob"),
    ]
    made = [Layer(name, operation, inputs) for name, operation, inputs, _ in layers]
    blobs = {name: blob for name, _, _, blob in layers}
    return assemble("residual", [Tensor("data", (1, 8, 8), "data")], made, blobs)  # type: ignore[arg-type]


@example
def names() -> str:
    network = residual()
    caches = tensor_names(network)
    rows = [(tensor, cache, fused_end(network, tensor)) for tensor, cache in caches.items()]
    return table(("table (layer)", "cache (blob)", "its fused operation has the scale of"), rows)


@example
def unified() -> str:
    network = residual()
    scales = {name: 0.01 * (i + 1) for i, name in enumerate(network.tensors)}
    fixed, changes = unify(network, CalibrationTable(scales))
    rules = {change.name: change.rule for change in changes}
    rows = [(n, f"{scales[n]:.6g}", f"{fixed[n]:.6g}", rules.get(n, "")) for n in scales]
    return table(("layer", "before", "after", "rule"), rows)


@example
def quantized_layer() -> str:
    weights = np.array([[0.5, -0.25], [0.03, 0.02]], np.float32).reshape(2, 2, 1, 1)
    bias = np.array([0.7, -0.05], np.float32)
    step = ConvolutionStep(("conv",), "data", "conv", weights, bias)
    scales = {"data": 0.02, "conv": 0.01}
    lines = []
    for mode in QuantizationMode:
        made = quantize_convolution(step, scales, mode)
        assert made.scales is not None
        first = made.program.x1
        assert first is not None
        lines.append(f"{mode}:")
        lines.append(f"    S_w      {joined(f'{s:.6g}' for s in made.scales)}")
        lines.append(f"    weights  {joined(made.weights.reshape(-1).tolist())}")
        operands = np.asarray(first.operands).reshape(2, -1).tolist()
        lines.append(
            f"    X1       shift {first.shift}, operands {joined(map(joined, operands))}, truncate {first.truncate}"
        )
        converter = made.program.converter
        assert converter is not None
        lines.append(f"    C        scale {converter.scale}, shift {converter.shift}")
    return "\n".join(lines)
