"""The calibration table: one scale for each layer, in the JSON form of `nvdla_compiler`'s ``--calibtable``.

docs/hardware/calibration-table.md says what compilers make of it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from nvdla_quant.errors import TableError
from nvdla_quant.jobs.files import write_text

SOFTMAX_SCALE = float(np.float32(1 / 127))
"""Scale of a final Softmax: the smallest one that probability 1 does not saturate."""


@dataclass(frozen=True)
class CalibrationTable:
    """Scales by name, in order.

    Attributes
    ----------
    scales : Mapping[str, float]
        Real value of one int8 step, finite and positive. In a fixed table the names are Caffe layer names, and the
        top blob's name for the network input; in a raw table they are the cache's tensor names.
    """

    scales: Mapping[str, float]

    def __post_init__(self) -> None:
        """Freeze the mapping and refuse impossible scales."""
        object.__setattr__(self, "scales", MappingProxyType(dict(self.scales)))
        for name, scale in self.scales.items():
            if not (math.isfinite(scale) and scale > 0):
                raise TableError(
                    f"calibration table: entry {name!r} has scale {scale}, expected a finite number above 0"
                )

    def __getitem__(self, name: str) -> float:
        """Return the scale of `name`; a missing one is a `TableError`."""
        if name not in self.scales:
            raise TableError(f"calibration table: no entry for {name!r}; it has {len(self.scales)} entries")
        return self.scales[name]


def write_table(table: CalibrationTable, path: Path) -> None:
    """Write `table` as NVIDIA's JSON: ``{name: {"scale": s, "min": 0, "max": 0, "offset": 0}}``."""
    entries = {name: {"scale": scale, "min": 0, "max": 0, "offset": 0} for name, scale in table.scales.items()}
    write_text(path, json.dumps(entries, indent=4, ensure_ascii=False) + "\n")


def read_table(path: Path) -> CalibrationTable:
    """Read the calibration table in `path` as `nvdla_compiler` does, but strictly.

    ``scale`` wins wherever it stands; else the scale is ``max(|min|, |max|) / 127``. ``offset`` and other keys of an
    entry are ignored, as there (nvdla/sw ``ParseTest.cpp``).

    Raises
    ------
    TableError
        Not JSON, a name or key that stands twice, an entry that is no object or has neither ``scale`` nor ``min`` and
        ``max``, a value that is no finite number, a scale that is not above 0. The message names the file and entry.
    OSError
        The file cannot be read.
    """
    try:
        return parse_table(path.read_bytes())
    except TableError as error:
        raise TableError(f"{path}: {error}") from error


def parse_table(content: bytes) -> CalibrationTable:
    """Decode the bytes of a calibration table; see `read_table` for the rules and errors."""
    try:
        entries = json.loads(content.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise TableError(f"not text (byte {error.start} is not UTF-8), expected JSON") from error
    except (ValueError, RecursionError) as error:
        raise TableError(f'not JSON: {error}; expected {{name: {{"scale": s, ...}}}}') from error
    if not isinstance(entries, dict):
        raise TableError(f'holds a JSON {type(entries).__name__}, expected an object {{name: {{"scale": s, ...}}}}')
    if not entries:
        raise TableError("no entries, expected one for each layer")
    return CalibrationTable({name: _entry_scale(name, entry) for name, entry in entries.items()})


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object of JSON; `json` alone would keep the last of two equal keys without a word."""
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise TableError(f"{key!r} stands twice; remove the wrong one")
        result[key] = value
    return result


def _entry_scale(name: str, entry: object) -> float:
    """Return the scale that `entry` states."""
    if not isinstance(entry, dict):
        raise TableError(f'entry {name!r} is {entry!r}, expected an object with "scale"')
    if "scale" in entry:
        return _number(name, "scale", entry["scale"])
    if "min" in entry and "max" in entry:
        return max(abs(_number(name, "min", entry["min"])), abs(_number(name, "max", entry["max"]))) / 127
    raise TableError(f'entry {name!r} has neither "scale" nor "min" and "max"; it has {sorted(entry)}')


def _number(name: str, key: str, value: object) -> float:
    """Return `value` as a float where it is a finite JSON number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise TableError(f"entry {name!r}: {key} is {value!r}, expected a finite number")
