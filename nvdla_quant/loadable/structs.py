"""The firmware's descriptors as numpy dtypes: little endian, packed; `OLDER` has those of an earlier layout.

Offsets are those of ``kmd/firmware/include/dla_interface.h`` (nvdla/sw after commit 16befcb) and of the EMU's
``emu_interface.h``; tests pin each size. docs/hardware/loadable.md says what each field means.
"""

import numpy as np

from nvdla_quant.loadable.kinds import (
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

__all__ = [
    "BDMA_OP",
    "BDMA_SURFACE",
    "BDMA_TRANSFER",
    "CDP_OP",
    "COMMON_OP",
    "CONSUMER",
    "CONV_MODE_DIRECT",
    "CONV_MODE_WINOGRAD",
    "CONV_OP",
    "CONV_SURFACE",
    "CUBE",
    "CVT",
    "EMU_BUFFER",
    "EMU_BUFFERS",
    "EMU_NETWORK",
    "EMU_OP",
    "ENGINES",
    "FIRST_WITH_OFFSETS",
    "FORMAT_A8B8G8R8",
    "FORMAT_A16B16G16R16_F",
    "FORMAT_FEATURE",
    "LUT",
    "NETWORK",
    "OLDER",
    "OLDER_FP16",
    "OPERATIONS",
    "OPERATION_BYTES",
    "PDP_OP",
    "RUBIK_OP",
    "SDP_OP",
    "SDP_SURFACE",
    "SDP_UNIT",
    "SURFACES",
    "SURFACE_BYTES",
    "TWO_CUBES",
    "WEIGHT_FORMAT_COMPRESSED",
    "WEIGHT_FORMAT_UNCOMPRESSED",
    "Activation",
    "DependencyEvent",
    "EmuFormat",
    "EmuOperation",
    "Engine",
    "ImageFormat",
    "MemoryType",
    "PoolMode",
    "ProcessorPrecision",
    "RubikMode",
    "SdpAlu",
    "SdpMode",
    "SdpType",
]

FORMAT_A16B16G16R16_F = 8

FORMAT_A8B8G8R8 = 12

FORMAT_FEATURE = 36

CONV_MODE_DIRECT, CONV_MODE_WINOGRAD = 0, 1

WEIGHT_FORMAT_UNCOMPRESSED, WEIGHT_FORMAT_COMPRESSED = 0, 1

ENGINES = len(Engine)

NETWORK = np.dtype(
    [
        ("operation_desc_index", "<i2"),
        ("surface_desc_index", "<i2"),
        ("dependency_graph_index", "<i2"),
        ("lut_data_index", "<i2"),
        ("roi_array_index", "<i2"),
        ("surface_index", "<i2"),
        ("stat_list_index", "<i2"),
        ("reserved1", "<i2"),
        ("op_head", "<i2", (ENGINES,)),
        ("num_rois", "<u2"),
        ("num_operations", "<u2"),
        ("num_luts", "<u2"),
        ("num_addresses", "<u2"),
        ("input_layer", "<i2"),
        ("dynamic_roi", "u1"),
        ("reserved0", "u1"),
    ]
)

CONSUMER = np.dtype([("index", "<i2"), ("event", "u1"), ("res", "u1")])

COMMON_OP = np.dtype(
    [
        ("index", "<i2"),
        ("roi_index", "i1"),
        ("op_type", "u1"),
        ("dependency_count", "u1"),
        ("reserved0", "u1", (3,)),
        ("consumers", CONSUMER, (ENGINES,)),
        ("fused_parent", CONSUMER),
    ]
)

CUBE = np.dtype(
    [
        ("type", "<u2"),
        ("address", "<i2"),
        ("offset", "<u4"),
        ("size", "<u4"),
        ("width", "<u2"),
        ("height", "<u2"),
        ("channel", "<u2"),
        ("reserved0", "<u2"),
        ("line_stride", "<u4"),
        ("surf_stride", "<u4"),
        ("plane_stride", "<u4"),
    ]
)

CVT = np.dtype([("scale", "<i2"), ("truncate", "u1"), ("enable", "u1"), ("offset", "<i4")])

CONV_OP = np.dtype(
    [
        ("conv_mode", "u1"),
        ("data_reuse", "u1"),
        ("weight_reuse", "u1"),
        ("skip_data_rls", "u1"),
        ("skip_weight_rls", "u1"),
        ("reserved0", "u1"),
        ("entry_per_slice", "<u2"),
        ("data_format", "u1"),
        ("pixel_mapping", "u1"),
        ("fetch_grain", "<u2"),
        ("reserved_b", "u1", (8,)),
        ("batch", "u1"),
        ("weight_format", "u1"),
        ("data_bank", "u1"),
        ("weight_bank", "u1"),
        ("batch_stride", "<u4"),
        ("post_extension", "u1"),
        ("pixel_override", "u1"),
        ("release", "<u2"),
        ("input_width_csc", "<u2"),
        ("input_height_csc", "<u2"),
        ("input_channel_csc", "<u2"),
        ("kernel_width_csc", "<u2"),
        ("kernel_height_csc", "<u2"),
        ("kernel_channel_csc", "<u2"),
        ("input_width_cmac", "<u2"),
        ("input_height_cmac", "<u2"),
        ("bytes_per_kernel", "<u4"),
        ("mean_ry", "<i2"),
        ("mean_gu", "<i2"),
        ("mean_bv", "<i2"),
        ("mean_ax", "<i2"),
        ("mean_format", "u1"),
        ("conv_stride_x", "u1"),
        ("conv_stride_y", "u1"),
        ("pad_x_left", "u1"),
        ("pad_x_right", "u1"),
        ("pad_y_top", "u1"),
        ("pad_y_bottom", "u1"),
        ("dilation_x", "u1"),
        ("dilation_y", "u1"),
        ("reserved2", "u1", (2,)),
        ("pra_truncate", "u1"),
        ("in_precision", "u1"),
        ("out_precision", "u1"),
        ("pad_val", "<i2"),
        ("in_cvt", CVT),
        ("out_cvt", CVT),
    ]
)

SDP_UNIT = np.dtype(
    [
        ("enable", "u1"),
        ("alu_type", "u1"),
        ("type", "u1"),
        ("mode", "u1"),
        ("act", "u1"),
        ("shift_value", "u1"),
        ("truncate", "u1"),
        ("precision", "u1"),
        ("alu_operand", "<i4"),
        ("mul_operand", "<i4"),
        ("alu_cvt", CVT),
        ("mul_cvt", CVT),
    ]
)

SDP_OP = np.dtype(
    [
        ("src_precision", "u1"),
        ("dst_precision", "u1"),
        ("lut_index", "<i2"),
        ("out_cvt", CVT),
        ("conv_mode", "u1"),
        ("batch_num", "u1"),
        ("reserved0", "<u2"),
        ("batch_stride", "<u4"),
        ("x1_op", SDP_UNIT),
        ("x2_op", SDP_UNIT),
        ("y_op", SDP_UNIT),
    ]
)

PDP_OP = np.dtype(
    [
        ("partial_in_width_first", "<u2"),
        ("partial_in_width_mid", "<u2"),
        ("partial_in_width_last", "<u2"),
        ("partial_width_first", "<u2"),
        ("partial_width_mid", "<u2"),
        ("partial_width_last", "<u2"),
        ("split_num", "u1"),
        ("pool_mode", "u1"),
        ("pool_width", "u1"),
        ("pool_height", "u1"),
        ("stride_x", "u1"),
        ("stride_y", "u1"),
        ("pad_left", "u1"),
        ("pad_right", "u1"),
        ("pad_top", "u1"),
        ("pad_bottom", "u1"),
        ("precision", "u1"),
        ("reserved0", "u1"),
        ("padding_value", "<i4", (7,)),
    ]
)

CDP_OP = np.dtype(
    [
        ("in_precision", "u1"),
        ("out_precision", "u1"),
        ("lut_index", "<i2"),
        ("in_cvt", CVT),
        ("out_cvt", CVT),
        ("local_size", "u1"),
        ("bypass_sqsum", "u1"),
        ("bypass_out_mul", "u1"),
        ("reserved0", "u1"),
    ]
)

RUBIK_OP = np.dtype([("mode", "u1"), ("precision", "u1"), ("stride_x", "u1"), ("stride_y", "u1")])

BDMA_OP = np.dtype([("num_transfers", "<u2"), ("reserved0", "<u2")])

OPERATIONS = {
    Engine.BDMA: BDMA_OP,
    Engine.CONV: CONV_OP,
    Engine.SDP: SDP_OP,
    Engine.PDP: PDP_OP,
    Engine.CDP: CDP_OP,
    Engine.RUBIK: RUBIK_OP,
}
"""Descriptor of each engine; in a loadable each stands at the start of `OPERATION_BYTES`."""

OPERATION_BYTES = 116

CONV_SURFACE = np.dtype(
    [
        ("weight_data", CUBE),
        ("wmb_data", CUBE),
        ("wgs_data", CUBE),
        ("src_data", CUBE),
        ("dst_data", CUBE),
        ("offset_u", "<i8"),
        ("in_line_uv_stride", "<u4"),
    ]
)

SDP_SURFACE = np.dtype([("src_data", CUBE), ("x1_data", CUBE), ("x2_data", CUBE), ("y_data", CUBE), ("dst_data", CUBE)])

TWO_CUBES = np.dtype([("src_data", CUBE), ("dst_data", CUBE)])
"""Surfaces of PDP, CDP and Rubik."""

BDMA_TRANSFER = np.dtype(
    [
        ("source_address", "<i2"),
        ("destination_address", "<i2"),
        ("line_size", "<u4"),
        ("line_repeat", "<u4"),
        ("source_line", "<u4"),
        ("destination_line", "<u4"),
        ("surface_repeat", "<u4"),
        ("source_surface", "<u4"),
        ("destination_surface", "<u4"),
    ]
)

BDMA_SURFACE = np.dtype(
    [
        ("source_type", "u1"),
        ("destination_type", "u1"),
        ("num_transfers", "<u2"),
        ("transfers", BDMA_TRANSFER, (20,)),
    ]
)

SURFACES = {
    Engine.BDMA: BDMA_SURFACE,
    Engine.CONV: CONV_SURFACE,
    Engine.SDP: SDP_SURFACE,
    Engine.PDP: TWO_CUBES,
    Engine.CDP: TWO_CUBES,
    Engine.RUBIK: TWO_CUBES,
}
"""Surfaces of each engine; in a loadable each stands at the start of `SURFACE_BYTES`."""

SURFACE_BYTES = 644

LUT = np.dtype(
    [
        ("linear_exp_table", "<i2", (65,)),
        ("linear_only_table", "<i2", (257,)),
        ("linear_exp_offset", "i1"),
        ("linear_exp_offset_pad", "u1"),
        ("linear_only_offset", "i1"),
        ("linear_only_offset_pad", "u1"),
        ("linear_exp_start", "<u8"),
        ("linear_exp_end", "<u8"),
        ("linear_only_start", "<u8"),
        ("linear_only_end", "<u8"),
        ("linear_exp_underflow_scale", "<i2"),
        ("linear_exp_underflow_shift", "i1"),
        ("linear_exp_underflow_pad", "u1"),
        ("linear_exp_overflow_scale", "<i2"),
        ("linear_exp_overflow_shift", "i1"),
        ("linear_exp_overflow_pad", "u1"),
        ("linear_only_underflow_scale", "<i2"),
        ("linear_only_underflow_shift", "i1"),
        ("linear_only_underflow_pad", "u1"),
        ("linear_only_overflow_scale", "<i2"),
        ("linear_only_overflow_shift", "i1"),
        ("linear_only_overflow_pad", "u1"),
        ("hybrid_priority", "u1"),
        ("underflow_priority", "u1"),
        ("overflow_priority", "u1"),
        ("method", "u1"),
    ]
)

EMU_NETWORK = np.dtype(
    {
        "names": ["operation_desc_index", "operation_buffer_desc_index", "num_operations"],
        "formats": ["<i2", "<i2", "<u2"],
        "offsets": [0, 2, 4],
        "itemsize": 256,
    }
)

EMU_OP = np.dtype(
    {
        "names": ["op_type", "input_scale", "output_scale", "axis", "power", "scale", "shift"],
        "formats": ["u1", "<f4", "<f4", "u1", "<f4", "<f4", "<f4"],
        "offsets": [0, 4, 8, 12, 12, 16, 20],
        "itemsize": 24,
    }
)
"""Softmax uses `axis`, power uses `power`, `scale` and `shift`: a union."""

EMU_BUFFER = np.dtype(
    {
        "names": ["address", "offset", "size", "format", "width", "height", "channel", "line_stride", "surf_stride"],
        "formats": ["<i2", "<u4", "<u4", "<u2", "<u2", "<u2", "<u2", "<u4", "<u4"],
        "offsets": [0, 2, 6, 10, 12, 14, 16, 18, 22],
        "itemsize": 256,
    }
)

EMU_BUFFERS = np.dtype([("src_data", EMU_BUFFER), ("dst_data", EMU_BUFFER)])

FIRST_WITH_OFFSETS = (0, 12, 0)
"""Version of the descriptors whose cubes have an `offset`: those of firmware after nvdla/sw commit 16befcb."""

_OLDER_CUBE = np.dtype([(name, CUBE[name]) for name in CUBE.names or () if name != "offset"])

_OLDER_EMU_OP = np.dtype(
    {
        "names": ["op_type", "axis", "power", "scale", "shift"],
        "formats": ["u1", "u1", "<f4", "<f4", "<f4"],
        "offsets": [0, 1, 1, 5, 9],
        "itemsize": 16,
    }
)

_OLDER_EMU_BUFFER = np.dtype(
    {
        "names": ["address", "size", "format", "width", "height", "channel", "line_stride", "surf_stride"],
        "formats": ["<i2", "<u4", "<u2", "<u2", "<u2", "<u2", "<u4", "<u4"],
        "offsets": [0, 2, 6, 8, 10, 12, 14, 18],
        "itemsize": 256,
    }
)

OLDER: dict[np.dtype[np.void], np.dtype[np.void]] = {
    **{
        surface: np.dtype([(name, _OLDER_CUBE if surface[name] == CUBE else surface[name]) for name in surface.names])
        for surface in (CONV_SURFACE, SDP_SURFACE, TWO_CUBES)
        if surface.names is not None
    },
    EMU_OP: _OLDER_EMU_OP,
    EMU_BUFFERS: np.dtype([("src_data", _OLDER_EMU_BUFFER), ("dst_data", _OLDER_EMU_BUFFER)]),
}
"""What earlier firmware and runtimes had in place of a descriptor.

Surfaces stand at the start of `SURFACE_BYTES` in both, for the largest of them, the BDMA's, has no cubes. Those of the
CPU had no scales either (``emu_interface.h`` before nvdla/sw commit 537e0e8).
"""

OLDER_FP16 = 2
"""What `EmuFormat.FP16` was; the only format that earlier runtimes knew."""
