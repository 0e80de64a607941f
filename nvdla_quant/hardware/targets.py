"""What the three NVDLA targets are: sizes, units and limits. Data only; the one place where they stand.

docs/hardware/README.md, "Configurations", has them side by side and their sources: nvdla/sw
``umd/core/src/compiler/TargetConfig.cpp`` (what compilers know) and nvdla/hw ``spec/defs`` (units).
"""

from dataclasses import dataclass
from enum import StrEnum

from nvdla_quant.errors import ConfigError


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
    has_y, has_lut, has_bdma, has_rubik, has_winograd, has_weight_compression, has_batch : bool
        Optional units; `has_batch`: several images in one convolution.
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

    @property
    def cbuf_bank_bytes(self) -> int:
        """Bytes of one bank of the convolution buffer."""
        return self.cbuf_bank_entries * self.cbuf_entry_bytes

    def kernels_per_group(self, element_bytes: int) -> int:
        """Kernels of one weight group for elements of `element_bytes` (1: INT8, 2: INT16 and fp16)."""
        return self.atomic_k // element_bytes


NV_FULL = Target(
    name="nv_full",
    feature_atom_bytes=32,
    atomic_c=64,
    atomic_k=32,
    cbuf_banks=16,
    cbuf_bank_entries=256,
    cbuf_entry_bytes=128,
    precisions=frozenset(Precision),
    has_y=True,
    has_lut=True,
    has_bdma=True,
    has_rubik=True,
    has_winograd=True,
    has_weight_compression=True,
    has_batch=True,
)

NV_LARGE = Target(
    name="nv_large",
    feature_atom_bytes=32,
    atomic_c=64,
    atomic_k=32,
    cbuf_banks=16,
    cbuf_bank_entries=512,
    cbuf_entry_bytes=64,
    precisions=frozenset({Precision.INT8}),
    has_y=True,
    has_lut=True,
    has_bdma=False,
    has_rubik=False,
    has_winograd=False,
    has_weight_compression=False,
    has_batch=False,
)

NV_SMALL = Target(
    name="nv_small",
    feature_atom_bytes=8,
    atomic_c=8,
    atomic_k=8,
    cbuf_banks=32,
    cbuf_bank_entries=512,
    cbuf_entry_bytes=8,
    precisions=frozenset({Precision.INT8}),
    has_y=False,
    has_lut=False,
    has_bdma=False,
    has_rubik=False,
    has_winograd=False,
    has_weight_compression=False,
    has_batch=False,
)

TARGETS: dict[str, Target] = {target.name: target for target in (NV_FULL, NV_LARGE, NV_SMALL)}

POOLING_RECIPROCALS: tuple[int, ...] = (0x10000, 0x8000, 0x5555, 0x4000, 0x3333, 0x2AAA, 0x2492, 0x2000)
"""Reciprocals of the pooling sizes 1 to 8 in 1/65536, truncated: fixed in the firmware (kmd/firmware/pdp.c:73)."""

MAX_POOLING_WINDOW = len(POOLING_RECIPROCALS)
"""Largest pooling width and height of the PDP."""


def target_of(name: str) -> Target:
    """Return the target called `name`.

    Raises
    ------
    ConfigError
        No such target; the message lists the known ones.
    """
    if name not in TARGETS:
        raise ConfigError(f"configtarget: unknown target {name!r}, expected one of {', '.join(TARGETS)}")
    return TARGETS[name]
