"""Say what a loadable holds: tensors, memory, tasks, and what each operation does. Nothing is executed.

Any loadable that follows the format can be described, whatever units it uses.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nvdla_quant.errors import LoadableError
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.layout import MAX_CUBE, layouts_of, possible
from nvdla_quant.loadable.records import (
    DataFormat,
    DataType,
    Interface,
    Loadable,
    Memory,
    MemoryFlags,
    PixelFormat,
    Task,
    TensorDescriptor,
)
from nvdla_quant.loadable.structs import (
    Activation,
    DependencyEvent,
    EmuFormat,
    EmuOperation,
    Engine,
    ImageFormat,
    MemoryType,
    PoolMode,
    ProcessorPrecision,
    RubikMode,
    SdpAlu,
    SdpMode,
    SdpType,
)
from nvdla_quant.loadable.tasks import TaskMemory, static_bytes

Description = dict[str, Any]
"""What JSON can hold."""


def describe(loadable: Loadable) -> Description:
    """Describe a loadable.

    Returns
    -------
    dict
        ``version``; ``inputs`` and ``outputs`` (name, shape (N, C, H, W), type, layout, format, strides, bytes);
        ``memory`` (id, bytes, kind, number of contents); ``tasks`` (id, engine, number of operations);
        ``operations`` (index, task, unit, chain of what it does, input and output (C, H, W), precision, MACs, weight
        bytes, and the indices that it waits for); ``totals``.

    Raises
    ------
    LoadableError
        A descriptor lies outside what the loadable declares, or a tensor or cube has a size that the hardware lacks.
    """
    static = static_bytes(loadable)
    layouts = layouts_of(loadable, static)
    operations: list[Description] = []
    tasks = []
    for task in loadable.tasks:
        space = TaskMemory(loadable, task, static, layouts)
        found = _accelerator(space, len(operations)) if task.interface == Interface.DLA1 else []
        found = _cpu(space, len(operations)) if task.interface == Interface.EMU1 else found
        operations += [{**operation, "task": task.id} for operation in found]
        tasks.append({"id": task.id, "engine": _engine_name(task), "operations": len(found)})
    memory = [_memory(entry) for entry in loadable.memories]
    return {
        "version": ".".join(map(str, loadable.version)),
        "inputs": [_tensor(tensor) for tensor in loadable.inputs],
        "outputs": [_tensor(tensor) for tensor in loadable.outputs],
        "memory": memory,
        "tasks": tasks,
        "operations": operations,
        "totals": {
            "operations": len(operations),
            "macs": sum(operation["macs"] for operation in operations),
            "weight_bytes": sum(operation["weight_bytes"] for operation in operations),
            "memory_bytes": sum(entry["bytes"] for entry in memory),
        },
    }


def _name(kinds: Callable[[int], Any], value: Any) -> str:
    """Return the name of an enumeration's value in lower case, or the number where it has none."""
    try:
        return str(kinds(int(value)).name).lower()
    except ValueError:
        return str(int(value))


def _engine_name(task: Task) -> str:
    names: dict[int, str] = {Interface.DLA1: "DLA", Interface.EMU1: "CPU"}
    return names.get(task.interface, str(task.interface))


def _tensor(tensor: TensorDescriptor) -> Description:
    if min(tensor.n, tensor.c, tensor.h, tensor.w) < 1:
        shape = f"{tensor.n}x{tensor.c}x{tensor.h}x{tensor.w}"
        raise LoadableError(f"tensor {tensor.name!r}: shape {shape}, expected 1 or more each; the file is damaged")
    return {
        "name": tensor.name,
        "shape": [tensor.n, tensor.c, tensor.h, tensor.w],
        "type": _name(DataType, tensor.data_type),
        "layout": _name(DataFormat, tensor.data_format),
        "format": _name(PixelFormat, tensor.pixel_format),
        "line_stride": tensor.strides[1],
        "surface_stride": tensor.strides[2],
        "bytes": tensor.size,
    }


def _memory(memory: Memory) -> Description:
    kinds = ((MemoryFlags.INPUT, "input"), (MemoryFlags.OUTPUT, "output"), (MemoryFlags.SET, "constants"))
    kind = next((name for flag, name in kinds if memory.flags & flag), "scratch")
    return {"id": memory.id, "bytes": memory.size, "kind": kind, "contents": len(memory.contents)}


def _accelerator(space: TaskMemory, base: int) -> list[Description]:
    network = space.records(0, structs.NETWORK, 1, "network descriptor")[0]
    count = int(network["num_operations"])
    common = space.records(int(network["dependency_graph_index"]), structs.COMMON_OP, count, "dependencies")
    waits: dict[int, list[str]] = {index: [] for index in range(count)}
    for index, entry in enumerate(common):
        for consumer in entry["consumers"]:
            if int(consumer["index"]) in waits:
                event = _name(DependencyEvent, consumer["event"])
                waits[int(consumer["index"])].append(f"{base + index} {event}")
    result = []
    for index, entry in enumerate(common):
        if entry["op_type"] not in list(Engine):
            raise LoadableError(f"{space.where} operation {index}: op_type {int(entry['op_type'])} is no unit")
        engine = Engine(entry["op_type"])
        op, surface = (
            space.records(int(network[field]), dtype, count, field, stride)[index]
            for field, dtype, stride in (
                ("operation_desc_index", structs.OPERATIONS[engine], structs.OPERATION_BYTES),
                ("surface_desc_index", structs.SURFACES[engine], structs.SURFACE_BYTES),
            )
        )
        facts: Description = {"input": None, "output": None, "precision": None, "macs": 0, "weight_bytes": 0}
        if engine is not Engine.BDMA:
            where = f"{space.where} operation {index} ({engine.name})"
            facts |= {
                "input": _checked(surface["src_data"], f"{where} source"),
                "output": _checked(surface["dst_data"], f"{where} destination"),
            }
        facts |= _UNITS[engine](op, surface)
        result.append({"index": base + index, "unit": engine.name, **facts, "waits_for": waits[index]})
    return result


def _checked(cube: np.void, where: str) -> list[int] | None:
    """Return the shape of a cube, which must be one that the hardware has; None where a unit hands over what has none.

    The firmware does not read the size of what the SDP hands over to a pooling.
    """
    if not possible(cube):
        raise LoadableError(
            f"{where}: {'x'.join(map(str, _shape(cube)))} (channels, height, width), expected 1 to {MAX_CUBE} each: no "
            "layout of the firmware's descriptors, with offsets or before them, gives cubes that are possible; the "
            "file is damaged, or made for another interface"
        )
    return _shape(cube) if any(_shape(cube)) else None


def _shape(cube: np.void) -> list[int]:
    return [int(cube[field]) for field in ("channel", "height", "width")]


def _conv(op: np.void, surface: np.void) -> Description:
    image = op["data_format"] != structs.FORMAT_FEATURE
    channels = int(op["kernel_channel_csc"])
    width, height = int(op["kernel_width_csc"]), int(op["kernel_height_csc"])
    kernels, out_height, out_width = _shape(surface["dst_data"])
    components = max(int(op["input_channel_csc"]), 1)
    taps = f"{height}x{channels // components if image else width}"
    mode = {0: "convolution", 1: "Winograd convolution"}.get(int(op["conv_mode"]), f"mode {int(op['conv_mode'])}")
    pads = [int(op[f"pad_{side}"]) for side in ("y_top", "y_bottom", "x_left", "x_right")]
    parts = [f"{mode} {taps}", f"stride {int(op['conv_stride_y'])}x{int(op['conv_stride_x'])}"]
    parts += [f"pad {'/'.join(map(str, pads))}"] if any(pads) else []
    dilation = int(op["dilation_y"]), int(op["dilation_x"])
    parts += [f"dilation {dilation[0]}x{dilation[1]}"] if dilation != (1, 1) else []
    parts += [f"image format {_name(ImageFormat, op['data_format']).upper()}"] if image else []
    parts += [f"batch {int(op['batch'])}"] if op["batch"] > 1 else []
    parts += ["compressed weights"] if op["weight_format"] else []
    parts += ["data from the buffer"] if op["data_reuse"] else []
    parts += ["weights from the buffer"] if op["weight_reuse"] else []
    return {
        "chain": [", ".join(parts)],
        "precision": _name(ProcessorPrecision, op["in_precision"]),
        "macs": kernels * out_height * out_width * width * height * channels,
        "weight_bytes": int(surface["weight_data"]["size"]),
    }


def _sdp(op: np.void, surface: np.void) -> Description:
    chain = []
    for name in ("x1", "x2", "y"):
        unit = op[f"{name}_op"]
        if unit["enable"]:
            chain.append(f"{name.upper()}: {_sdp_unit(unit)}")
    converter = op["out_cvt"]
    if (converter["scale"], converter["truncate"], converter["offset"]) != (1, 0, 0):
        offset = f"- {int(converter['offset'])} " if converter["offset"] else ""
        chain.append(f"C: {offset}* {int(converter['scale'])} >> {int(converter['truncate'])}")
    return {
        "chain": chain or ["copy"],
        "precision": _name(ProcessorPrecision, op["src_precision"]),
        "source": "convolution" if surface["src_data"]["type"] == MemoryType.ON_THE_FLY else "memory",
    }


def _sdp_unit(unit: np.void) -> str:
    kind, alu = int(unit["type"]), _name(SdpAlu, unit["alu_type"])
    kinds: dict[int, list[str]] = {
        SdpType.NONE: [],
        SdpType.MUL: ["mul"],
        SdpType.ADD: [alu],
        SdpType.BOTH: [alu, "mul"],
    }
    parts = list(kinds.get(kind, [f"type {kind}"]))
    if parts:
        mode = _name(SdpMode, unit["mode"]).replace("_", " ")
        parts.append(f"({mode})")
    parts += [f"<< {int(unit['shift_value'])}"] if unit["shift_value"] else []
    parts += [f">> {int(unit['truncate'])}"] if unit["truncate"] else []
    parts += [_name(Activation, unit["act"])] if unit["act"] else []
    return " ".join(parts) or "pass"


def _pdp(op: np.void, surface: np.void) -> Description:
    pads = [int(op[f"pad_{side}"]) for side in ("top", "bottom", "left", "right")]
    text = (
        f"{_name(PoolMode, op['pool_mode'])} pooling {int(op['pool_height']) + 1}x{int(op['pool_width']) + 1}, "
        f"stride {int(op['stride_y'])}x{int(op['stride_x'])}"
    )
    text += f", pad {'/'.join(map(str, pads))}" if any(pads) else ""
    text += f", in {int(op['split_num'])} parts" if op["split_num"] > 1 else ""
    text += ", on the fly" if surface["src_data"]["type"] == MemoryType.ON_THE_FLY else ""
    return {"chain": [text], "precision": _name(ProcessorPrecision, op["precision"])}


def _cdp(op: np.void, surface: np.void) -> Description:
    del surface
    text = f"local response normalisation over {int(op['local_size'])} channels"
    text += ", of values" if op["bypass_sqsum"] else ""
    text += ", without multiplier" if op["bypass_out_mul"] else ""
    return {"chain": [text], "precision": _name(ProcessorPrecision, op["in_precision"])}


def _rubik(op: np.void, surface: np.void) -> Description:
    del surface
    text = _name(RubikMode, op["mode"])
    text += f", stride {int(op['stride_y'])}x{int(op['stride_x'])}" if op["mode"] == RubikMode.CONTRACT else ""
    return {"chain": [text], "precision": _name(ProcessorPrecision, op["precision"])}


def _bdma(op: np.void, surface: np.void) -> Description:
    del op
    # The firmware counts those of the surface descriptor.
    copies = surface["transfers"][: int(surface["num_transfers"])]
    size = sum(int(copy["line_size"]) * int(copy["line_repeat"]) * int(copy["surface_repeat"]) for copy in copies)
    return {"chain": [f"{len(copies)} copies, {size} bytes"]}


_UNITS: Mapping[Engine, Callable[[np.void, np.void], Description]] = {
    Engine.BDMA: _bdma,
    Engine.CONV: _conv,
    Engine.SDP: _sdp,
    Engine.PDP: _pdp,
    Engine.CDP: _cdp,
    Engine.RUBIK: _rubik,
}


def _cpu(space: TaskMemory, base: int) -> list[Description]:
    network = space.records(0, structs.EMU_NETWORK, 1, "network descriptor")[0]
    count = int(network["num_operations"])
    tables = (
        ("operation_desc_index", structs.EMU_OP),
        ("operation_buffer_desc_index", structs.EMU_BUFFERS),
    )
    ops, buffers = (space.records(int(network[field]), dtype, count, field) for field, dtype in tables)
    return [
        {
            "index": base + index,
            "unit": "EMU",
            "input": _checked(buffer["src_data"], f"{space.where} operation {index} (EMU) source"),
            "output": _checked(buffer["dst_data"], f"{space.where} operation {index} (EMU) destination"),
            "precision": _name(EmuFormat, buffer["src_data"]["format"]),
            "macs": 0,
            "weight_bytes": 0,
            "chain": [
                f"{_name(EmuOperation, op['op_type'])}, scales {float(op['input_scale']):.6g} in, "
                f"{float(op['output_scale']):.6g} out"
            ],
            "waits_for": [],
        }
        for index, (op, buffer) in enumerate(zip(ops, buffers, strict=True))
    ]


def render(description: Mapping[str, Any]) -> str:
    """Return the text of a description: what `describe` returned."""
    totals = description["totals"]
    lines = [f"loadable version {description['version']}"]
    for side in ("inputs", "outputs"):
        for tensor in description[side]:
            shape = "x".join(map(str, tensor["shape"]))
            lines.append(
                f"{side[:-1]} {tensor['name']}: {shape} {tensor['type']}, {tensor['layout']} {tensor['format']}, "
                f"line {tensor['line_stride']}, surface {tensor['surface_stride']}, {tensor['bytes']} bytes"
            )
    kinds = dict.fromkeys(entry["kind"] for entry in description["memory"])
    sizes = (sum(entry["bytes"] for entry in description["memory"] if entry["kind"] == kind) for kind in kinds)
    lines.append("memory: " + ", ".join(f"{size} bytes {kind}" for kind, size in zip(kinds, sizes, strict=True)))
    lines += [f"task {task['id']}: {task['engine']}, {task['operations']} operations" for task in description["tasks"]]
    lines.append("")
    rows: list[tuple[str, ...]] = [("op", "task", "unit", "type", "input", "output", "MACs", "weights", "does")]
    rows += [_row(operation) for operation in description["operations"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines += [
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    lines.append("")
    lines.append(
        f"{totals['operations']} operations, {totals['macs']} MACs and {totals['weight_bytes']} bytes of "
        f"weights, {totals['memory_bytes']} bytes of memory"
    )
    return "\n".join(lines)


def _row(operation: Mapping[str, Any]) -> tuple[str, ...]:
    shapes = ["x".join(map(str, operation[side])) if operation[side] else "-" for side in ("input", "output")]
    counts = [str(operation[field]) if operation[field] else "-" for field in ("macs", "weight_bytes")]
    precision = operation["precision"] or "-"
    does = "; ".join(operation["chain"])
    return (str(operation["index"]), str(operation["task"]), operation["unit"], precision, *shapes, *counts, does)
