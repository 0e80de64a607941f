"""What a configuration of NVDLA is, and the seven that nvdla/hw has. Data only; the one place where they stand.

docs/targets.md has them side by side. Sources: nvdla/hw ``spec/defs/*.spec`` (``nv_full`` on branch nvdlav1, the others
on master), and nvdla/sw ``umd/core/src/compiler/TargetConfig.cpp`` (what NVIDIA's compiler knows of three of them).
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from nvdla_quant.hardware.timing import FITTED, Timing


class Precision(StrEnum):
    """Precision of an operation; fp16 and int8 are also those of a loadable, `nvdla_compiler`'s ``--cprecision``."""

    FP16 = "fp16"
    INT8 = "int8"
    INT16 = "int16"


COMPILED_PRECISIONS = (Precision.FP16, Precision.INT8)
"""Precisions that the compilers make loadables of; single operations of a loadable may have any."""


class QuantizationMode(StrEnum):
    """How weights share scales; values are `nvdla_compiler`'s ``--quantizationMode``."""

    PER_KERNEL = "per-kernel"
    PER_FILTER = "per-filter"


@dataclass(frozen=True)
class Rates:
    """Elements of int8 that the units behind the MAC array take in a cycle; 0 where a unit is absent.

    Attributes
    ----------
    x1, x2, y : int
        Of the SDP (``SDP_BS``, ``SDP_BN`` and ``SDP_EW`` in the specs).
    pooling, normalisation : int
        Of the PDP and the CDP.
    """

    x1: int
    x2: int
    y: int
    pooling: int
    normalisation: int


@dataclass(frozen=True)
class MemoryInterface:
    """A way to memory.

    Attributes
    ----------
    bits : int
        Width of its data bus.
    burst : int
        Most beats of a burst.
    latency : int
        Cycles that its queues are built for.
    """

    bits: int
    burst: int
    latency: int


@dataclass(frozen=True)
class Target:
    """One hardware configuration.

    Attributes
    ----------
    name : str
        Name as in `nvdla_compiler`'s ``--configtarget``.
    feature_atom_bytes : int
        Bytes of channels that stand together in a feature cube.
    atomic_c, atomic_k : int
        INT8 channels of one MAC step; INT8 kernels of one weight group (2-byte types on `nv_full`: half of `atomic_k`).
    cbuf_banks, cbuf_bank_entries, cbuf_entry_bytes : int
        Geometry of the convolution buffer.
    precisions : frozenset[Precision]
        What the MAC array computes.
    has_y, has_lut, has_bdma, has_rubik, has_winograd, has_weight_compression, has_batch, has_pdp, has_cdp : bool
        Optional units; `has_lut`: the table of the SDP's Y; `has_batch`: several images in one convolution.
    rates : Rates
        What the units take in a cycle.
    memory, secondary : MemoryInterface, MemoryInterface or None
        Ways to DRAM and to the memory beside the core (SRAM).
    address_bits : int
        Width of an address.
    timing : Timing
        What its clock cycles follow from besides.
    """

    name: str
    feature_atom_bytes: int
    atomic_c: int
    atomic_k: int
    cbuf_banks: int
    cbuf_bank_entries: int
    cbuf_entry_bytes: int
    precisions: frozenset[Precision]
    has_y: bool
    has_lut: bool
    has_bdma: bool
    has_rubik: bool
    has_winograd: bool
    has_weight_compression: bool
    has_batch: bool
    has_pdp: bool
    has_cdp: bool
    rates: Rates
    memory: MemoryInterface
    secondary: MemoryInterface | None
    address_bits: int
    timing: Timing = FITTED

    @property
    def cbuf_bank_bytes(self) -> int:
        """Bytes of one bank of the convolution buffer."""
        return self.cbuf_bank_entries * self.cbuf_entry_bytes

    def kernels_per_group(self, element_bytes: int) -> int:
        """Kernels of one weight group for elements of `element_bytes` (1: INT8, 2: INT16 and fp16)."""
        return self.atomic_k // element_bytes

    @property
    def port_atom_bytes(self) -> int:
        """Bytes of an atom where a tensor's format names none but NVIDIA's two (loadable: ``FEATURE``, not ``_X8``)."""
        return self.feature_atom_bytes if self.feature_atom_bytes > 8 else 32


EVERY_UNIT = ("y", "lut", "bdma", "rubik", "winograd", "weight_compression", "batch", "pdp", "cdp")
"""Units that a configuration may lack: the names of the `Target.has_...`."""


def configured(
    name: str,
    mac: tuple[int, int],
    buffer: tuple[int, int],
    units: Collection[str],
    rates: Rates,
    memory: MemoryInterface,
    secondary: MemoryInterface | None = None,
    *,
    precisions: frozenset[Precision] = frozenset({Precision.INT8}),
    address_bits: int = 64,
) -> Target:
    """Return the target of a specification; what follows from other values is filled in.

    In all seven the memory's atom is atomic K and a bank is as wide as atomic C. With 2-byte types (nv_full) an entry
    of the buffer is two of the specification's words, and a bank has half as many.

    Parameters
    ----------
    name : str
        Its name.
    mac : tuple[int, int]
        Atomic C and K.
    buffer : tuple[int, int]
        Banks of the convolution buffer, and words of `mac`'s C bytes in each.
    units : Collection[str]
        Those of `EVERY_UNIT` that it has.
    rates, memory, secondary, precisions, address_bits
        See `Target`.
    """
    atomic_c, atomic_k = mac
    banks, depth = buffer
    words = 2 if len(precisions) > 1 else 1
    return Target(
        name=name,
        feature_atom_bytes=atomic_k,
        atomic_c=atomic_c,
        atomic_k=atomic_k,
        cbuf_banks=banks,
        cbuf_bank_entries=depth // words,
        cbuf_entry_bytes=atomic_c * words,
        precisions=precisions,
        has_y="y" in units,
        has_lut="lut" in units,
        has_bdma="bdma" in units,
        has_rubik="rubik" in units,
        has_winograd="winograd" in units,
        has_weight_compression="weight_compression" in units,
        has_batch="batch" in units,
        has_pdp="pdp" in units,
        has_cdp="cdp" in units,
        rates=rates,
        memory=memory,
        secondary=secondary,
        address_bits=address_bits,
    )


_PLANAR = frozenset({"pdp", "cdp"})
_FULL = _PLANAR | {"y", "lut"}

NV_FULL = configured(
    "nv_full",
    (64, 32),
    (16, 512),
    EVERY_UNIT,
    Rates(16, 16, 4, 8, 8),
    MemoryInterface(512, 1, 1200),
    MemoryInterface(512, 4, 128),
    precisions=frozenset(Precision),
)
_WIDE = MemoryInterface(256, 1, 1024)
NV_LARGE = configured("nv_large", (64, 32), (16, 512), _FULL, Rates(16, 16, 4, 8, 8), _WIDE, _WIDE)
_MEDIUM = MemoryInterface(256, 4, 1024)
NV_MEDIUM_1024_FULL = configured(
    "nv_medium_1024_full", (32, 32), (32, 512), _FULL, Rates(8, 8, 2, 4, 4), _MEDIUM, _MEDIUM
)
NV_MEDIUM_512 = configured(
    "nv_medium_512", (32, 16), (32, 512), _PLANAR, Rates(4, 4, 0, 2, 2), MemoryInterface(128, 4, 256)
)
_BURSTS, _BEATS = MemoryInterface(64, 4, 64), MemoryInterface(64, 1, 64)
NV_SMALL_256_FULL = configured(
    "nv_small_256_full", (32, 8), (32, 128), _FULL, Rates(2, 2, 1, 1, 1), _BURSTS, _BURSTS, address_bits=32
)
NV_SMALL_256 = configured("nv_small_256", (32, 8), (32, 128), _PLANAR, Rates(1, 1, 0, 1, 1), _BEATS, address_bits=32)
NV_SMALL = configured("nv_small", (8, 8), (32, 512), _PLANAR, Rates(1, 1, 0, 1, 1), _BEATS, address_bits=32)

SHIPPED = (NV_FULL, NV_LARGE, NV_MEDIUM_1024_FULL, NV_MEDIUM_512, NV_SMALL_256_FULL, NV_SMALL_256, NV_SMALL)
TARGETS: dict[str, Target] = {target.name: target for target in SHIPPED}
"""The seven, by name."""

NVIDIA_COMPILER_TARGETS = (NV_FULL, NV_LARGE, NV_SMALL)
"""Those that NVIDIA's compiler knows (nvdla/sw ``umd/core/src/compiler/TargetConfig.cpp``)."""

POOLING_RECIPROCALS: tuple[int, ...] = (0x10000, 0x8000, 0x5555, 0x4000, 0x3333, 0x2AAA, 0x2492, 0x2000)
"""Reciprocals of the pooling sizes 1 to 8 in 1/65536, truncated: fixed in the firmware (kmd/firmware/pdp.c:73)."""

MAX_POOLING_WINDOW = len(POOLING_RECIPROCALS)
"""Largest pooling width and height of the PDP."""
