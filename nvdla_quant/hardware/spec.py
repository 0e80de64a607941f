"""Specifications of NVDLA in nvdla/hw's own syntax, read and never executed, and the target that a user names.

A specification is a list of lines ``#define NAME_VALUE`` (nvdla/hw ``spec/defs/README.md``, ``projects.spec``): VALUE
is ENABLE or DISABLE, a number, a type, or ``x`` where a part is absent. docs/targets.md lists the names.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from nvdla_quant.errors import ConfigError
from nvdla_quant.hardware.targets import (
    NV_FULL,
    TARGETS,
    MemoryInterface,
    Precision,
    Rates,
    Target,
    configured,
)

SUFFIX = ".spec"
MAX_BYTES = 1 << 16
"""A specification of nvdla/hw has 1.2 kB."""
MAX_NUMBER = 1 << 16
"""Larger than any size, rate or latency."""
NAME = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
"""What a target may be called: its name is a part of paths, and none of it but itself."""

UNITS = {
    "SDP_EW": "y",
    "SDP_LUT": "lut",
    "BDMA": "bdma",
    "RUBIK": "rubik",
    "WINOGRAD": "winograd",
    "WEIGHT_COMPRESSION": "weight_compression",
    "BATCH": "batch",
    "PDP": "pdp",
    "CDP": "cdp",
}
"""Parts that may be absent, and what a `Target` calls them."""
ALWAYS = ("SDP_BS", "SDP_BN")
"""Parts that all of nvdla/hw's configurations have, and that the compiler relies on."""
PARTS = (*UNITS, *ALWAYS, "SECONDARY_MEMIF", "RUBIK_CONTRACT", "RUBIK_RESHAPE")
"""What a specification says ENABLE or DISABLE of."""
WITHOUT_EFFECT = ("RETIMING",)
"""Parts that change no result: registers within the MAC array."""
NUMBERS = {
    "MAC_ATOMIC_C_SIZE": "",
    "MAC_ATOMIC_K_SIZE": "",
    "MEMORY_ATOMIC_SIZE": "",
    "MAX_BATCH_SIZE": "BATCH",
    "CBUF_BANK_NUMBER": "",
    "CBUF_BANK_WIDTH": "",
    "CBUF_BANK_DEPTH": "",
    "SDP_BS_THROUGHPUT": "SDP_BS",
    "SDP_BN_THROUGHPUT": "SDP_BN",
    "SDP_EW_THROUGHPUT": "SDP_EW",
    "PDP_THROUGHPUT": "PDP",
    "CDP_THROUGHPUT": "CDP",
    "PRIMARY_MEMIF_LATENCY": "",
    "PRIMARY_MEMIF_MAX_BURST_LENGTH": "",
    "PRIMARY_MEMIF_WIDTH": "",
    "SECONDARY_MEMIF_LATENCY": "SECONDARY_MEMIF",
    "SECONDARY_MEMIF_MAX_BURST_LENGTH": "SECONDARY_MEMIF",
    "SECONDARY_MEMIF_WIDTH": "SECONDARY_MEMIF",
}
"""Numbers that a specification has, and the part without which one is ``x``."""
OPTIONAL_NUMBERS = ("MEM_ADDRESS_WIDTH", "NUM_DMA_READ_CLIENTS", "NUM_DMA_WRITE_CLIENTS")
"""Numbers that nv_full's specification lacks; addresses have 64 bits there."""
TYPES = ("FEATURE_DATA_TYPE", "WEIGHT_DATA_TYPE")
"""INT8 in all specifications of master. That of nv_full has neither: int8, int16 and fp16."""
FLAGS = ("DESIGNWARE_NOEXIST",)
"""What a build of the RTL is told, without effect on results."""

C_OVER_K = (1, 2, 4)
"""What atomic C may be in units of atomic K (``CC_ATOMC_DIV_ATOMK_EQUAL_...`` of the RTL)."""

_DEFINE = re.compile(r"#[ \t]*define[ \t]+([A-Za-z_][A-Za-z0-9_]*)")
_INCLUDE = re.compile(r'#[ \t]*include[ \t]+"projects\.spec"')


def target_of(asked: str | Path | Mapping[str, str]) -> Target:
    """Return the target that a user names.

    Parameters
    ----------
    asked : str, Path or Mapping
        The name of a shipped target, the path of a specification, or a record of the configuration: ``name`` and
        ``spec``.

    Raises
    ------
    ConfigError
        No such target, or a specification that cannot be read or is not covered.
    """
    if isinstance(asked, Mapping):
        return read_spec(Path(asked["spec"]), asked["name"])
    if isinstance(asked, str) and asked in TARGETS:
        return TARGETS[asked]
    path = Path(asked)
    if isinstance(asked, str) and path.suffix != SUFFIX and path.name == asked:
        known = ", ".join(TARGETS)
        raise ConfigError(
            f"configtarget: unknown target {asked!r}, expected one of {known}, or the path of a specification "
            f"(*{SUFFIX})"
        )
    return read_spec(path, path.stem)


def read_spec(path: Path, name: str) -> Target:
    """Return the target that a file in nvdla/hw's syntax specifies, called `name`.

    Raises
    ------
    ConfigError
        See `parse_spec`; or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable specification ({error}); expected nvdla/hw's syntax") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes, expected a specification of some 50 lines")
    return parse_spec(text, name, str(path))


def parse_spec(text: str, name: str, where: str) -> Target:
    """Return the target that `text` specifies.

    Parameters
    ----------
    text : str
        Lines ``#define NAME_VALUE``, comments, and the line that includes ``projects.spec``.
    name : str
        What the target is called.
    where : str
        Where the text is from, for messages.

    Raises
    ------
    ConfigError
        A line of another kind, a name that is missing, twice or unknown, a part that no code covers, or a combination
        that is not legal; the message has the rule.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: {name!r} is no name of a target: small letters and digits, joined by _ or -")
    try:
        return _target(name, _values(text))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _target(name: str, values: Mapping[str, str]) -> Target:
    """Return the target of a specification's values, checked against every rule."""
    for part in ALWAYS:
        if values[part] != "ENABLE":
            raise ConfigError(f"{part}_DISABLE is not covered: all configurations of nvdla/hw have it; enable it")
    wide = _is_wide(values)
    target = configured(
        name,
        _mac(values),
        _buffer(values),
        [unit for part, unit in UNITS.items() if values[part] == "ENABLE"],
        Rates(*(_number(values, f"{part}_THROUGHPUT") for part in (*ALWAYS, "SDP_EW", "PDP", "CDP"))),
        _interface(values, "PRIMARY"),
        _interface(values, "SECONDARY") if values["SECONDARY_MEMIF"] == "ENABLE" else None,
        precisions=frozenset(Precision) if wide else frozenset({Precision.INT8}),
        address_bits=_address_bits(values),
    )
    _check_units(values, target)
    return target


def _values(text: str) -> dict[str, str]:
    """Return what a specification says of each name, once all names are known and there."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        content = line.partition("//")[0].strip()
        if not content or _INCLUDE.fullmatch(content):
            continue
        found = _DEFINE.fullmatch(content)
        if found is None:
            raise ConfigError(
                f"line {number}: {content[:80]!r}, expected `#define NAME_VALUE`; nothing else is read, and no macro "
                "is expanded"
            )
        name, value = _divided(found[1], number)
        if values.setdefault(name, value) != value:
            raise ConfigError(f"line {number}: {name}_{value}, but {name}_{values[name]} stands above; remove one")
    for name in (*PARTS, *NUMBERS):
        if name not in values:
            expected = "ENABLE or _DISABLE" if name in PARTS else "<number>" + ("" if not NUMBERS[name] else " or _x")
            raise ConfigError(f"{name} is missing; add `#define {name}_{expected}`")
    return values


def _divided(word: str, line: int) -> tuple[str, str]:
    """Return the name and the value of a word, both known."""
    name, _, value = word.rpartition("_")
    if word in FLAGS:
        return word, ""
    if value in ("ENABLE", "DISABLE"):
        if name in PARTS or name in WITHOUT_EFFECT or value == "DISABLE":
            return name, value
        raise ConfigError(
            f"line {line}: {word} asks for a part that none of nvdla/hw's configurations has, so no code covers it"
            f"{_hint(name, (*PARTS, *WITHOUT_EFFECT))}"
        )
    if name in TYPES:
        if value == "INT8":
            return name, value
        raise ConfigError(
            f"line {line}: {word} is not covered, expected {name}_INT8; or no type at all, as in nv_full's "
            "specification, which has int8, int16 and fp16"
        )
    if name in NUMBERS or name in OPTIONAL_NUMBERS:
        if value == "x" or (value.isascii() and value.isdigit() and len(value) < 8 and 0 < int(value) <= MAX_NUMBER):
            return name, value
        raise ConfigError(f"line {line}: {word}, expected a number of 1 to {MAX_NUMBER} behind {name}_, or x")
    known = (*PARTS, *WITHOUT_EFFECT, *NUMBERS, *OPTIONAL_NUMBERS, *TYPES)
    raise ConfigError(f"line {line}: {word} is no name that nvdla/hw's specifications have{_hint(name, known)}")


def _hint(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name[:80], known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _number(values: Mapping[str, str], name: str) -> int:
    """Return a number; 0 where the part that it belongs to is absent."""
    part = NUMBERS.get(name)
    if part and values[part] == "DISABLE":
        return 0
    if values[name] == "x":
        needs = f": {part}_ENABLE needs it" if part else ""
        raise ConfigError(f"{name}_x, expected a number{needs}")
    return int(values[name])


def _is_wide(values: Mapping[str, str]) -> bool:
    """Return whether the MAC array also has 2-byte types, as that of nv_full."""
    named = [name for name in TYPES if name in values]
    if len(named) == 1:
        raise ConfigError(f"{named[0]} without {next(n for n in TYPES if n not in named)}: give both, or neither")
    if named:
        return False
    given = tuple(_number(values, name) for name in ("MAC_ATOMIC_C_SIZE", "MAC_ATOMIC_K_SIZE", "MEMORY_ATOMIC_SIZE"))
    known = NV_FULL.atomic_c, NV_FULL.atomic_k, NV_FULL.feature_atom_bytes
    if given != known:
        raise ConfigError(
            f"no FEATURE_DATA_TYPE, which means int8, int16 and fp16, with atoms {given} (C, K, memory): that is "
            f"covered for nv_full's {known} alone; add FEATURE_DATA_TYPE_INT8 and WEIGHT_DATA_TYPE_INT8"
        )
    return True


def _power(values: Mapping[str, str], name: str, least: int, most: int) -> int:
    """Return a number that must be a power of two: addresses are cut by its logarithm (``projects.spec``)."""
    number = _number(values, name)
    if not least <= number <= most or number & (number - 1):
        raise ConfigError(f"{name}_{number}, expected a power of two from {least} to {most}")
    return number


def _mac(values: Mapping[str, str]) -> tuple[int, int]:
    """Return atomic C and K, which have to fit each other (``vmod/nvdla/csc/NV_NVDLA_CSC.h``)."""
    atomic_c, atomic_k = (_power(values, f"MAC_ATOMIC_{axis}_SIZE", 8, 64) for axis in "CK")
    if atomic_c % atomic_k or atomic_c // atomic_k not in C_OVER_K:
        ratios = ", ".join(map(str, C_OVER_K))
        raise ConfigError(
            f"MAC_ATOMIC_C_SIZE_{atomic_c} with MAC_ATOMIC_K_SIZE_{atomic_k}: the rule is C = K times one of {ratios}, "
            "which sequencer, accumulator and buffer are built for"
        )
    if (atom := _number(values, "MEMORY_ATOMIC_SIZE")) != atomic_k:
        raise ConfigError(
            f"MEMORY_ATOMIC_SIZE_{atom} with MAC_ATOMIC_K_SIZE_{atomic_k}: the rule is that both are equal, as in all "
            "of nvdla/hw's configurations: a group of kernels makes one atom"
        )
    return atomic_c, atomic_k


def _buffer(values: Mapping[str, str]) -> tuple[int, int]:
    """Return banks and words of a bank (``vmod/nvdla/cbuf/NV_NVDLA_CBUF.h``)."""
    banks = _power(values, "CBUF_BANK_NUMBER", 2, 32)
    depth = _power(values, "CBUF_BANK_DEPTH", 64, 4096)
    width, atomic_c = _number(values, "CBUF_BANK_WIDTH"), _number(values, "MAC_ATOMIC_C_SIZE")
    if width != atomic_c:
        raise ConfigError(
            f"CBUF_BANK_WIDTH_{width} with MAC_ATOMIC_C_SIZE_{atomic_c}: the rule is that both are equal, as in all of "
            "nvdla/hw's configurations: the MAC array takes one word of a bank a cycle"
        )
    return banks, depth


def _interface(values: Mapping[str, str], which: str) -> MemoryInterface:
    names = ("WIDTH", "MAX_BURST_LENGTH", "LATENCY")
    return MemoryInterface(*(_number(values, f"{which}_MEMIF_{name}") for name in names))


def _address_bits(values: Mapping[str, str]) -> int:
    bits = values.get("MEM_ADDRESS_WIDTH", "64")
    if bits not in ("32", "64"):
        raise ConfigError(f"MEM_ADDRESS_WIDTH_{bits}, expected 32 or 64")
    return int(bits)


def _check_units(values: Mapping[str, str], target: Target) -> None:
    """Refuse units that are there without what they need, or with sizes that no configuration shows."""
    if target.has_lut and not target.has_y:
        raise ConfigError("SDP_LUT_ENABLE with SDP_EW_DISABLE: the table is a part of that unit; enable both")
    for part in ("RUBIK_CONTRACT", "RUBIK_RESHAPE"):
        if values[part] != values["RUBIK"]:
            raise ConfigError(f"{part}_{values[part]} with RUBIK_{values['RUBIK']} is not covered: set both alike")
    if target.has_batch and values["MAX_BATCH_SIZE"] != "32":
        raise ConfigError(f"MAX_BATCH_SIZE_{values['MAX_BATCH_SIZE']} with BATCH_ENABLE is not covered, expected 32")
    if target.has_bdma and target.feature_atom_bytes != NV_FULL.feature_atom_bytes:
        raise ConfigError(
            f"BDMA_ENABLE with MEMORY_ATOMIC_SIZE_{target.feature_atom_bytes} is not covered, expected 32"
        )
    # Kernels of Winograd, and masks of compressed ones, are known in the order and the precisions of nv_full.
    for part in ("WINOGRAD", "WEIGHT_COMPRESSION"):
        if values[part] == "ENABLE" and target.precisions != NV_FULL.precisions:
            raise ConfigError(f"{part}_ENABLE without nv_full's types and atoms is not covered; disable it")
