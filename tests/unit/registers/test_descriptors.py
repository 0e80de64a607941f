"""What stands in registers is what the loadable meant: golden loadables, written into registers and read back."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.operations import Cube, Operation, SdpOperation
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Target
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.layout import layouts_of
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import Interface, Loadable
from nvdla_quant.loadable.structs import Activation, Engine, MemoryType, SdpMode, SdpType
from nvdla_quant.loadable.tasks import TaskMemory, Window, static_bytes
from nvdla_quant.registers import places as tables
from nvdla_quant.registers.launch import Launcher
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.traces.statements import PRIMARY
from nvdla_quant.registers.units import Unit
from tests.conftest import REPOSITORY
from tests.register_programs import CONVOLUTION, Values, addressed, enables, encoded, writes

CASES = {
    "resnets-nv-small-int8-perfilter": NV_SMALL,
    "v-elt-prod-nv-small-int8-perfilter": NV_SMALL,
    "v-dilation-nv-full-int8-perkernel": NV_FULL,
    "v-conv0-nobias-relu-nv-full-fp16": NV_FULL,
}
MEMORY_BYTES = 1 << 28
PARTS = {"x1": ("BS", "BRDMA"), "x2": ("BN", "NRDMA"), "y": ("EW", "ERDMA")}
USES = {SdpType.MUL: 0, SdpType.ADD: 1, SdpType.BOTH: 2}


def flat(record: np.void, name: str = "") -> dict[str, int]:
    """Return the fields of a descriptor by their names, a dot between a part's and its own."""
    found: dict[str, int] = {}
    for field in record.dtype.names or ():
        value = record[field]
        if value.dtype.names:
            found |= flat(value, f"{name}{field}.")
        elif value.shape == ():
            found[f"{name}{field}"] = int(value)
    return found


class Written:
    """Descriptors of a DLA task as register values; memory m is at address m * `MEMORY_BYTES`."""

    def __init__(self, loadable: Loadable) -> None:
        static = static_bytes(loadable)
        task = next(task for task in loadable.tasks if task.interface == Interface.DLA1)
        self.memory = TaskMemory(loadable, task, static, layouts_of(loadable, static))
        network = self.memory.records(0, structs.NETWORK, 1, "network")[0]
        self.count = int(network["num_operations"])
        self.network = network
        self.common = self.table("dependency_graph_index", structs.COMMON_OP)

    def table(self, field: str, dtype: "np.dtype[np.void]", stride: int | None = None) -> Any:
        return self.memory.records(int(self.network[field]), dtype, self.count, field, stride)

    def descriptors(self, index: int) -> tuple[Engine, np.void, np.void]:
        engine = Engine(self.common[index]["op_type"])
        op = self.table("operation_desc_index", structs.OPERATIONS[engine], structs.OPERATION_BYTES)[index]
        surface = self.table("surface_desc_index", structs.SURFACES[engine], structs.SURFACE_BYTES)[index]
        return engine, op, surface

    def address(self, cube: np.void) -> int:
        window = self.memory.window(int(cube["address"]), int(cube["offset"]), 0, "cube")
        return window.memory * MEMORY_BYTES + window.offset

    def conv(self, op: np.void, surface: np.void) -> Values:
        """A convolution (kmd/firmware/conv.c)."""
        values = encoded(tables.CONV, flat(op)) | encoded(tables.CONV_SURFACE, flat(surface))
        values |= encoded(tables.DIRECT, flat(op))
        source, weights = self.address(surface["src_data"]), self.address(surface["weight_data"])
        values |= addressed("CDMA.D_DAIN_ADDR_HIGH_0", "CDMA.D_DAIN_ADDR_LOW_0", source)
        values |= addressed("CDMA.D_WEIGHT_ADDR_HIGH", "CDMA.D_WEIGHT_ADDR_LOW", weights)
        image = int(op["data_format"]) != structs.FORMAT_FEATURE
        values |= {"CDMA.D_DATAIN_FORMAT.DATAIN_FORMAT": int(image), "CSC.D_DATAIN_FORMAT": int(image)}
        values |= {"CDMA.D_DATAIN_FORMAT.PIXEL_FORMAT": int(op["data_format"]) * image}
        return values | {"CDMA.D_DAIN_RAM_TYPE": 1, "CDMA.D_WEIGHT_RAM_TYPE": 1}

    def sdp(self, op: np.void, surface: np.void) -> Values:
        """A single-point operation (kmd/firmware/sdp.c)."""
        flying = surface["src_data"]["type"] == MemoryType.ON_THE_FLY
        values = encoded(tables.SDP, flat(op)) | {"SDP.D_FEATURE_MODE_CFG.FLYING_MODE": int(flying)}
        values |= encoded(tables.SDP_SURFACE, flat(surface)) | {"SDP.D_DST_DMA_CFG": 1}
        values |= {"SDP_RDMA.D_FEATURE_MODE_CFG.IN_PRECISION": int(op["src_precision"])}
        where = self.address(surface["dst_data"])
        values |= addressed("SDP.D_DST_BASE_ADDR_HIGH", "SDP.D_DST_BASE_ADDR_LOW", where)
        if not flying:
            where = self.address(surface["src_data"])
            values |= encoded(tables.SDP_SOURCE, flat(surface)) | {"SDP_RDMA.D_SRC_DMA_CFG": 1}
            values |= addressed("SDP_RDMA.D_SRC_BASE_ADDR_HIGH", "SDP_RDMA.D_SRC_BASE_ADDR_LOW", where)
        for name, (short, reader) in PARTS.items():
            values |= self.unit(op[f"{name}_op"], surface[f"{name}_data"], short, reader)
        return values

    def unit(self, op: np.void, cube: np.void, short: str, reader: str) -> Values:
        """One unit of a single-point operation."""
        kind, per_layer = SdpType(op["type"]), op["mode"] == SdpMode.PER_LAYER
        adds, multiplies = kind in (SdpType.ADD, SdpType.BOTH), kind in (SdpType.MUL, SdpType.BOTH)
        switch = f"SDP.D_DP_{short}_CFG.{short}"
        values = {
            f"{switch}_BYPASS": int(not op["enable"]),
            f"{switch}_ALU_BYPASS": int(not adds),
            f"{switch}_ALU_ALGO": int(op["alu_type"]),
            f"{switch}_MUL_BYPASS": int(not multiplies),
            f"{switch}_MUL_PRELU": int(op["act"] == Activation.PRELU),
            f"{switch}_{'LUT' if short == 'EW' else 'RELU'}_BYPASS": int(
                op["act"] != (Activation.LUT if short == "EW" else Activation.RELU)
            ),
            f"SDP.D_DP_{short}_ALU_CFG.{short}_ALU_SRC": int(not per_layer),
            f"SDP.D_DP_{short}_MUL_CFG.{short}_MUL_SRC": int(not per_layer),
            f"SDP.D_DP_{short}_ALU_SRC_VALUE": int(op["alu_operand"]),
            f"SDP.D_DP_{short}_MUL_SRC_VALUE": int(op["mul_operand"]),
        }
        if short != "EW":
            values[f"SDP.D_DP_{short}_ALU_CFG.{short}_ALU_SHIFT_VALUE"] = int(op["shift_value"])
            values[f"SDP.D_DP_{short}_MUL_CFG.{short}_MUL_SHIFT_VALUE"] = int(op["truncate"])
        else:
            values["SDP.D_DP_EW_TRUNCATE_VALUE"] = int(op["truncate"])
            for part in ("alu", "mul"):
                cvt, name = op[f"{part}_cvt"], f"EW_{part.upper()}"
                values[f"SDP.D_DP_{name}_CFG.{name}_CVT_BYPASS"] = int(not cvt["enable"])
                for what, field in (("OFFSET", "offset"), ("SCALE", "scale"), ("TRUNCATE", "truncate")):
                    values[f"SDP.D_DP_{name}_CVT_{what}_VALUE"] = int(cvt[field])
        fetched = bool(op["enable"]) and kind is not SdpType.NONE and not per_layer
        values[f"SDP_RDMA.D_{reader}_CFG.{reader}_DISABLE"] = int(not fetched)
        if fetched:
            values[f"SDP_RDMA.D_{reader}_CFG.{reader}_DATA_USE"] = USES[kind]
            values[f"SDP_RDMA.D_{reader}_CFG.{reader}_DATA_SIZE"] = int(op["precision"] != 0)
            values[f"SDP_RDMA.D_{reader}_CFG.{reader}_DATA_MODE"] = int(op["mode"] == SdpMode.PER_POINT)
            values[f"SDP_RDMA.D_{reader}_CFG.{reader}_RAM_TYPE"] = 1
            values[f"SDP_RDMA.D_{short}_LINE_STRIDE"] = int(cube["line_stride"])
            values[f"SDP_RDMA.D_{short}_SURFACE_STRIDE"] = int(cube["surf_stride"])
            high, low = (f"SDP_RDMA.D_{short}_BASE_ADDR_{half}" for half in ("HIGH", "LOW"))
            values |= addressed(high, low, self.address(cube))
        return values

    def pdp(self, op: np.void, surface: np.void) -> Values:
        """A pooling of a cube in memory (kmd/firmware/pdp.c)."""
        values = encoded(tables.PDP, flat(op)) | encoded(tables.PDP_SOURCE, flat(op))
        values |= encoded(tables.PDP_SURFACE, flat(surface)) | encoded(tables.PDP_SOURCE_SURFACE, flat(surface))
        source, result = self.address(surface["src_data"]), self.address(surface["dst_data"])
        values |= addressed("PDP_RDMA.D_SRC_BASE_ADDR_HIGH", "PDP_RDMA.D_SRC_BASE_ADDR_LOW", source)
        values |= addressed("PDP.D_DST_BASE_ADDR_HIGH", "PDP.D_DST_BASE_ADDR_LOW", result)
        values |= {"PDP_RDMA.D_SRC_RAM_CFG": 1, "PDP.D_DST_RAM_CFG": 1, "PDP.D_OPERATION_MODE_CFG.FLYING_MODE": 1}
        for text, value in zip(tables.PDP_PADDING, op["padding_value"].tolist(), strict=True):
            values[text.removesuffix("~")] = value
        return values


def placed(part: Any) -> Any:
    """Return `part` of an operation with its memories at their addresses."""
    if isinstance(part, Cube | Window):
        return replace(part, memory=PRIMARY, offset=part.memory * MEMORY_BYTES + part.offset)
    if isinstance(part, tuple):
        return tuple(placed(item) for item in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{field.name: placed(getattr(part, field.name)) for field in fields(part)})
    return part


def read_back(written: Written, target: Target) -> Iterator[Operation]:
    """Yield the operations of a task as registers have them; the convolution that feeds one stands before it."""
    registers = register_map(target)
    units = {name: Unit(name, registers) for name in registers.units}
    launcher = Launcher(units, target)
    convolutions = {}
    for index in range(written.count):
        engine, op, surface = written.descriptors(index)
        if engine is Engine.CONV:
            convolutions[index] = written.conv(op, surface)
            continue
        if engine is Engine.SDP:
            values, names = written.sdp(op, surface), ["SDP", "SDP_RDMA"]
            if surface["src_data"]["type"] == MemoryType.ON_THE_FLY:
                values |= convolutions[int(written.common[index]["fused_parent"]["index"])]
                names += CONVOLUTION
        else:
            assert engine is Engine.PDP
            values, names = written.pdp(op, surface), ["PDP", "PDP_RDMA"]
        for name in names:
            units[name].write(registers.register(name, "S_POINTER"), units[name].consumer, 0)
        for statement in (*writes(registers, values), *enables(registers, *names)):
            units[statement.register.unit].write(statement.register, statement.value, 0)  # type: ignore[attr-defined]
        launch = launcher.next()
        assert launch is not None
        (operation,) = launch.decode(f"operation {index}")
        yield operation
        launcher.done([operation])
        for name in names:
            units[name].finish()


def without_numbers(operation: Operation) -> Operation:
    """Return an operation without what only tells it from others, or says in another way what the firmware writes."""
    if isinstance(operation, SdpOperation):
        source = operation.source
        source = source if isinstance(source, Cube) else replace(source, index=0)
        return replace(operation, index=0, source=source)
    return replace(operation, index=0, **({"reciprocals": None} if hasattr(operation, "reciprocals") else {}))


@pytest.mark.parametrize("case", CASES)
def test_registers_give_the_operations_of_the_loadable(case: str) -> None:
    target = CASES[case]
    loadable = read_loadable(Path(REPOSITORY) / "tests" / "data" / "golden" / case / "loadable.nvdla")
    declared = [placed(without_numbers(o)) for o in decode(loadable, target).operations if o.unit != "EMU"]
    found = [without_numbers(operation) for operation in read_back(Written(loadable), target)]
    assert len(found) == len(declared) > 0
    for one, other in zip(found, declared, strict=True):
        assert one == other
