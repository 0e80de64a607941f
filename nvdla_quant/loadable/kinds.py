"""What numbers in the firmware's descriptors stand for (``dla_interface.h``, ``emu_interface.h``)."""

from enum import IntEnum


class Engine(IntEnum):
    """Hardware units that execute operations (``DLA_OP_*``)."""

    BDMA = 0
    CONV = 1
    SDP = 2
    PDP = 3
    CDP = 4
    RUBIK = 5


class DependencyEvent(IntEnum):
    """What a consumer waits for (``DLA_EVENT_*``)."""

    OP_COMPLETED = 1
    OP_PROGRAMMED = 2
    OP_ENABLED = 3
    CDMA_WEIGHT_DONE = 4
    CDMA_DATA_DONE = 5


class MemoryType(IntEnum):
    """Where a cube lies (``DLA_MEM_*``): DRAM, on-chip SRAM, or passed on between units."""

    DRAM = 0
    SRAM = 1
    ON_THE_FLY = 2


class ProcessorPrecision(IntEnum):
    """``PRECISION_*`` of the firmware."""

    INT8 = 0
    INT16 = 1
    FP16 = 2


class SdpType(IntEnum):
    """What an SDP unit does (``SDP_OP_*``)."""

    NONE = 0
    MUL = 1
    ADD = 2
    BOTH = 3


class SdpAlu(IntEnum):
    """Operation of an SDP ALU (``SDP_ALU_OP_*``)."""

    MAX = 0
    MIN = 1
    SUM = 2
    EQL = 3


class SdpMode(IntEnum):
    """How many operands an SDP unit has (``SDP_OP_PER_*``)."""

    PER_LAYER = 0
    PER_KERNEL = 1
    PER_POINT = 2


class Activation(IntEnum):
    """``ACTIVATION_*`` of the firmware."""

    NONE = 0
    RELU = 1
    LUT = 2
    PRELU = 3


class PoolMode(IntEnum):
    """``POOL_MODE_*`` of the firmware."""

    AVERAGE = 0
    MAX = 1
    MIN = 2


class ImageFormat(IntEnum):
    """``FORMAT_T_*`` of the firmware: components from the highest bits of a pixel down, planes apart by ``___``."""

    R8 = 0
    R10 = 1
    R12 = 2
    R16 = 3
    R16_I = 4
    R16_F = 5
    A16B16G16R16 = 6
    X16B16G16R16 = 7
    A16B16G16R16_F = 8
    A16Y16U16V16 = 9
    V16U16Y16A16 = 10
    A16Y16U16V16_F = 11
    A8B8G8R8 = 12
    A8R8G8B8 = 13
    B8G8R8A8 = 14
    R8G8B8A8 = 15
    X8B8G8R8 = 16
    X8R8G8B8 = 17
    B8G8R8X8 = 18
    R8G8B8X8 = 19
    A2B10G10R10 = 20
    A2R10G10B10 = 21
    B10G10R10A2 = 22
    R10G10B10A2 = 23
    A2Y10U10V10 = 24
    V10U10Y10A2 = 25
    A8Y8U8V8 = 26
    V8U8Y8A8 = 27
    Y8___U8V8_N444 = 28
    Y8___V8U8_N444 = 29
    Y10___U10V10_N444 = 30
    Y10___V10U10_N444 = 31
    Y12___U12V12_N444 = 32
    Y12___V12U12_N444 = 33
    Y16___U16V16_N444 = 34
    Y16___V16U16_N444 = 35


class RubikMode(IntEnum):
    """``RUBIK_MODE_*`` of the firmware."""

    CONTRACT = 0
    SPLIT = 1
    MERGE = 2


class EmuOperation(IntEnum):
    """Operations of the CPU (``NVDLA_EMU_OP_*``)."""

    POWER = 0
    SOFTMAX = 1


class EmuFormat(IntEnum):
    """Surface formats of the CPU (``EMU_FORMAT_*``)."""

    INT8 = 0
    INT8_8 = 1
    INT16 = 2
    FP16 = 3
    UINT8 = 4
    UINT16 = 5
