"""Which field of which register each field of a descriptor becomes: for reading registers, and for writing them.

``UNIT.REGISTER.FIELD``, or ``UNIT.REGISTER`` where that has one field; ``+1``: the register holds one less; ``~``: a
signed number. Where a descriptor's field goes to several places, all of them must agree.

Facts: nvdla/sw ``kmd/firmware/{conv,sdp,pdp,cdp,rubik,bdma}.c``, the functions ``processor_*_program``.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_PLACE = re.compile(r"(\w+)\.(\w+)(?:\.(\w+))?(\+1)?(~?)")


@dataclass(frozen=True)
class Place:
    """A field of a register.

    Attributes
    ----------
    unit, register, field : str
        Names in the map.
    more : int
        How much more than the register's the descriptor's value is.
    signed : bool
        Whether the highest bit is a sign.
    """

    unit: str
    register: str
    field: str
    more: int
    signed: bool

    def __str__(self) -> str:
        return ".".join(filter(None, (self.unit, self.register, self.field)))


@lru_cache(maxsize=1024)
def places(text: str) -> tuple[Place, ...]:
    """Return the places that `text` names."""
    found = []
    for word in text.split():
        match = _PLACE.fullmatch(word)
        assert match, f"{word!r} is no place"
        unit, register, field, more, signed = match.groups()
        found.append(Place(unit, register, field or "", int(more or 0), bool(signed)))
    return tuple(found)


def _all(units: str, rest: str) -> str:
    return " ".join(f"{unit}.{rest}" for unit in units.split())


CONV = {
    "conv_mode": _all("CDMA CSC CMAC_A CMAC_B CACC", "D_MISC_CFG.CONV_MODE"),
    "data_reuse": _all("CDMA CSC", "D_MISC_CFG.DATA_REUSE"),
    "weight_reuse": _all("CDMA CSC", "D_MISC_CFG.WEIGHT_REUSE"),
    "skip_data_rls": _all("CDMA CSC", "D_MISC_CFG.SKIP_DATA_RLS"),
    "skip_weight_rls": _all("CDMA CSC", "D_MISC_CFG.SKIP_WEIGHT_RLS"),
    "entry_per_slice": _all("CDMA CSC", "D_ENTRY_PER_SLICE+1"),
    "fetch_grain": "CDMA.D_FETCH_GRAIN+1",
    "batch": _all("CDMA CSC CACC", "D_BATCH_NUMBER+1"),
    "weight_format": _all("CDMA CSC", "D_WEIGHT_FORMAT"),
    "data_bank": _all("CDMA CSC", "D_BANK.DATA_BANK+1"),
    "weight_bank": _all("CDMA CSC", "D_BANK.WEIGHT_BANK+1"),
    "batch_stride": "CDMA.D_BATCH_STRIDE",
    "post_extension": "CSC.D_POST_Y_EXTENSION",
    "pixel_mapping": "CDMA.D_DATAIN_FORMAT.PIXEL_MAPPING",
    "pixel_override": "CDMA.D_DATAIN_FORMAT.PIXEL_SIGN_OVERRIDE",
    "release": "CSC.D_RELEASE+1",
    "input_width_csc": "CSC.D_DATAIN_SIZE_EXT_0.DATAIN_WIDTH_EXT+1",
    "input_height_csc": "CSC.D_DATAIN_SIZE_EXT_0.DATAIN_HEIGHT_EXT+1",
    "input_channel_csc": "CSC.D_DATAIN_SIZE_EXT_1+1",
    "kernel_width_csc": "CSC.D_WEIGHT_SIZE_EXT_0.WEIGHT_WIDTH_EXT+1",
    "kernel_height_csc": "CSC.D_WEIGHT_SIZE_EXT_0.WEIGHT_HEIGHT_EXT+1",
    "kernel_channel_csc": "CSC.D_WEIGHT_SIZE_EXT_1.WEIGHT_CHANNEL_EXT+1",
    "input_width_cmac": "CSC.D_DATAOUT_SIZE_0.DATAOUT_WIDTH+1",
    "input_height_cmac": "CSC.D_DATAOUT_SIZE_0.DATAOUT_HEIGHT+1",
    "bytes_per_kernel": "CDMA.D_WEIGHT_SIZE_0+1",
    "mean_ry": "CDMA.D_MEAN_GLOBAL_0.MEAN_RY~",
    "mean_gu": "CDMA.D_MEAN_GLOBAL_0.MEAN_GU~",
    "mean_bv": "CDMA.D_MEAN_GLOBAL_1.MEAN_BV~",
    "mean_ax": "CDMA.D_MEAN_GLOBAL_1.MEAN_AX~",
    "mean_format": "CDMA.D_MEAN_FORMAT",
    "conv_stride_x": "CDMA.D_CONV_STRIDE.CONV_X_STRIDE+1",
    "conv_stride_y": "CDMA.D_CONV_STRIDE.CONV_Y_STRIDE+1",
    "pad_x_left": "CDMA.D_ZERO_PADDING.PAD_LEFT",
    "pad_x_right": "CDMA.D_ZERO_PADDING.PAD_RIGHT",
    "pad_y_top": "CDMA.D_ZERO_PADDING.PAD_TOP",
    "pad_y_bottom": "CDMA.D_ZERO_PADDING.PAD_BOTTOM",
    "dilation_x": "CSC.D_DILATION_EXT.X_DILATION_EXT+1",
    "dilation_y": "CSC.D_DILATION_EXT.Y_DILATION_EXT+1",
    "pra_truncate": "CSC.D_PRA_CFG",
    "in_precision": "CDMA.D_MISC_CFG.IN_PRECISION",
    "out_precision": _all("CSC CDMA CMAC_A CMAC_B CACC", "D_MISC_CFG.PROC_PRECISION"),
    "pad_val": _all("CSC CDMA", "D_ZERO_PADDING_VALUE~"),
    "in_cvt.enable": "CDMA.D_CVT_CFG.CVT_EN",
    "in_cvt.truncate": "CDMA.D_CVT_CFG.CVT_TRUNCATE",
    "in_cvt.offset": "CDMA.D_CVT_OFFSET~",
    "in_cvt.scale": "CDMA.D_CVT_SCALE~",
    "out_cvt.truncate": "CACC.D_CLIP_CFG",
}
"""``dla_conv_op_desc``; `data_format` is two fields, see `decode.conv`."""
DIRECT = {
    "conv_stride_x": "CSC.D_CONV_STRIDE_EXT.CONV_X_STRIDE_EXT+1",
    "conv_stride_y": "CSC.D_CONV_STRIDE_EXT.CONV_Y_STRIDE_EXT+1",
    "pad_x_left": "CSC.D_ZERO_PADDING.PAD_LEFT",
    "pad_y_top": "CSC.D_ZERO_PADDING.PAD_TOP",
}
"""Where CSC has the same again; with Winograd it has strides of 1 and no padding."""
EXTENDED = {
    "input_width_csc": "CDMA.D_DATAIN_SIZE_EXT_0.DATAIN_WIDTH_EXT+1",
    "input_height_csc": "CDMA.D_DATAIN_SIZE_EXT_0.DATAIN_HEIGHT_EXT+1",
}
"""Where CDMA has the same again; it looks at that with Winograd alone, and some of NVIDIA's traces do not write it."""
CONV_SURFACE = {
    "src_data.width": "CDMA.D_DATAIN_SIZE_0.DATAIN_WIDTH+1",
    "src_data.height": "CDMA.D_DATAIN_SIZE_0.DATAIN_HEIGHT+1",
    "src_data.channel": "CDMA.D_DATAIN_SIZE_1+1",
    "src_data.line_stride": "CDMA.D_LINE_STRIDE",
    "src_data.surf_stride": "CDMA.D_SURF_STRIDE",
    "in_line_uv_stride": "CDMA.D_LINE_UV_STRIDE",
    "weight_data.size": _all("CDMA CSC", "D_WEIGHT_BYTES"),
    "dst_data.width": "CACC.D_DATAOUT_SIZE_0.DATAOUT_WIDTH+1",
    "dst_data.height": "CACC.D_DATAOUT_SIZE_0.DATAOUT_HEIGHT+1",
    "dst_data.channel": "CACC.D_DATAOUT_SIZE_1+1 CSC.D_WEIGHT_SIZE_EXT_1.WEIGHT_KERNEL+1 CDMA.D_WEIGHT_SIZE_1+1",
}
WMB_BYTES = _all("CDMA CSC", "D_WMB_BYTES")
SDP = {
    "src_precision": "SDP.D_DATA_FORMAT.PROC_PRECISION",
    "dst_precision": "SDP.D_DATA_FORMAT.OUT_PRECISION",
    "conv_mode": "SDP.D_FEATURE_MODE_CFG.WINOGRAD",
    "batch_num": "SDP.D_FEATURE_MODE_CFG.BATCH_NUMBER+1",
    "batch_stride": "SDP.D_DST_BATCH_STRIDE",
    "out_cvt.offset": "SDP.D_CVT_OFFSET~",
    "out_cvt.scale": "SDP.D_CVT_SCALE~",
    "out_cvt.truncate": "SDP.D_CVT_SHIFT",
}
"""``dla_sdp_op_desc`` without its units; of a source in memory, `src_precision` is SDP_RDMA's IN_PRECISION."""
SDP_SURFACE = {
    "dst_data.width": "SDP.D_DATA_CUBE_WIDTH+1",
    "dst_data.height": "SDP.D_DATA_CUBE_HEIGHT+1",
    "dst_data.channel": "SDP.D_DATA_CUBE_CHANNEL+1",
    "dst_data.line_stride": "SDP.D_DST_LINE_STRIDE",
    "dst_data.surf_stride": "SDP.D_DST_SURFACE_STRIDE",
}
SDP_SOURCE = {
    "src_data.width": "SDP_RDMA.D_DATA_CUBE_WIDTH+1",
    "src_data.height": "SDP_RDMA.D_DATA_CUBE_HEIGHT+1",
    "src_data.channel": "SDP_RDMA.D_DATA_CUBE_CHANNEL+1",
    "src_data.line_stride": "SDP_RDMA.D_SRC_LINE_STRIDE",
    "src_data.surf_stride": "SDP_RDMA.D_SRC_SURFACE_STRIDE",
}
PDP = {
    "pool_mode": "PDP.D_OPERATION_MODE_CFG.POOLING_METHOD",
    "split_num": "PDP.D_OPERATION_MODE_CFG.SPLIT_NUM+1",
    "pool_width": "PDP.D_POOLING_KERNEL_CFG.KERNEL_WIDTH",
    "pool_height": "PDP.D_POOLING_KERNEL_CFG.KERNEL_HEIGHT",
    "stride_x": "PDP.D_POOLING_KERNEL_CFG.KERNEL_STRIDE_WIDTH+1",
    "stride_y": "PDP.D_POOLING_KERNEL_CFG.KERNEL_STRIDE_HEIGHT+1",
    "pad_left": "PDP.D_POOLING_PADDING_CFG.PAD_LEFT",
    "pad_right": "PDP.D_POOLING_PADDING_CFG.PAD_RIGHT",
    "pad_top": "PDP.D_POOLING_PADDING_CFG.PAD_TOP",
    "pad_bottom": "PDP.D_POOLING_PADDING_CFG.PAD_BOTTOM",
    "precision": "PDP.D_DATA_FORMAT",
    "partial_in_width_first": "PDP.D_PARTIAL_WIDTH_IN.PARTIAL_WIDTH_IN_FIRST+1",
    "partial_in_width_mid": "PDP.D_PARTIAL_WIDTH_IN.PARTIAL_WIDTH_IN_MID+1",
    "partial_in_width_last": "PDP.D_PARTIAL_WIDTH_IN.PARTIAL_WIDTH_IN_LAST+1",
    "partial_width_first": "PDP.D_PARTIAL_WIDTH_OUT.PARTIAL_WIDTH_OUT_FIRST+1",
    "partial_width_mid": "PDP.D_PARTIAL_WIDTH_OUT.PARTIAL_WIDTH_OUT_MID+1",
    "partial_width_last": "PDP.D_PARTIAL_WIDTH_OUT.PARTIAL_WIDTH_OUT_LAST+1",
}
PDP_PADDING = tuple(f"PDP.D_POOLING_PADDING_VALUE_{count}_CFG~" for count in range(1, 8))
PDP_SOURCE = {
    "split_num": "PDP_RDMA.D_OPERATION_MODE_CFG+1",
    "precision": "PDP_RDMA.D_DATA_FORMAT",
}
"""Where PDP_RDMA has the same again."""
PDP_SURFACE = {
    "src_data.width": "PDP.D_DATA_CUBE_IN_WIDTH+1",
    "src_data.height": "PDP.D_DATA_CUBE_IN_HEIGHT+1",
    "src_data.channel": "PDP.D_DATA_CUBE_IN_CHANNEL+1",
    "dst_data.width": "PDP.D_DATA_CUBE_OUT_WIDTH+1",
    "dst_data.height": "PDP.D_DATA_CUBE_OUT_HEIGHT+1",
    "dst_data.channel": "PDP.D_DATA_CUBE_OUT_CHANNEL+1",
    "dst_data.line_stride": "PDP.D_DST_LINE_STRIDE",
    "dst_data.surf_stride": "PDP.D_DST_SURFACE_STRIDE",
}
PDP_SOURCE_SURFACE = {
    "src_data.width": "PDP_RDMA.D_DATA_CUBE_IN_WIDTH+1",
    "src_data.height": "PDP_RDMA.D_DATA_CUBE_IN_HEIGHT+1",
    "src_data.channel": "PDP_RDMA.D_DATA_CUBE_IN_CHANNEL+1",
    "src_data.line_stride": "PDP_RDMA.D_SRC_LINE_STRIDE",
    "src_data.surf_stride": "PDP_RDMA.D_SRC_SURFACE_STRIDE",
}
CDP = {
    "in_precision": "CDP.D_DATA_FORMAT CDP_RDMA.D_DATA_FORMAT",
    "out_precision": "CDP.D_DATA_FORMAT",
    "bypass_sqsum": "CDP.D_FUNC_BYPASS.SQSUM_BYPASS",
    "bypass_out_mul": "CDP.D_FUNC_BYPASS.MUL_BYPASS",
    "in_cvt.offset": "CDP.D_DATIN_OFFSET~",
    "in_cvt.scale": "CDP.D_DATIN_SCALE~",
    "in_cvt.truncate": "CDP.D_DATIN_SHIFTER",
    "out_cvt.offset": "CDP.D_DATOUT_OFFSET~",
    "out_cvt.scale": "CDP.D_DATOUT_SCALE~",
    "out_cvt.truncate": "CDP.D_DATOUT_SHIFTER",
}
"""``dla_cdp_op_desc`` without `local_size` and its table."""
CDP_SURFACE = {
    "src_data.width": "CDP_RDMA.D_DATA_CUBE_WIDTH+1",
    "src_data.height": "CDP_RDMA.D_DATA_CUBE_HEIGHT+1",
    "src_data.channel": "CDP_RDMA.D_DATA_CUBE_CHANNEL+1",
    "src_data.line_stride": "CDP_RDMA.D_SRC_LINE_STRIDE",
    "src_data.surf_stride": "CDP_RDMA.D_SRC_SURFACE_STRIDE",
    "dst_data.width": "CDP_RDMA.D_DATA_CUBE_WIDTH+1",
    "dst_data.height": "CDP_RDMA.D_DATA_CUBE_HEIGHT+1",
    "dst_data.channel": "CDP_RDMA.D_DATA_CUBE_CHANNEL+1",
    "dst_data.line_stride": "CDP.D_DST_LINE_STRIDE",
    "dst_data.surf_stride": "CDP.D_DST_SURFACE_STRIDE",
}
RUBIK = {
    "mode": "RBK.D_MISC_CFG.RUBIK_MODE",
    "precision": "RBK.D_MISC_CFG.IN_PRECISION",
    "stride_x": "RBK.D_DECONV_STRIDE.DECONV_X_STRIDE+1",
    "stride_y": "RBK.D_DECONV_STRIDE.DECONV_Y_STRIDE+1",
}
