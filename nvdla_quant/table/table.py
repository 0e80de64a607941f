"""The calibration table: one scale for each layer, in the JSON form of `nvdla_compiler`'s ``--calibtable``."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nvdla_quant.errors import TableError


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
    path.write_text(json.dumps(entries, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
