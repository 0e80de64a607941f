"""Scales that others wrote: which form a file has, and whether its numbers mean what a calibration table's mean.

===================================== ==========================================================================
form                                  what becomes of it
===================================== ==========================================================================
calibration cache of any TensorRT     read; NVIDIA's ``resnet50.txt`` is one
JSON of `nvdla_compiler`              read; ``scale``, else ``min`` and ``max``; refused where an ``offset`` is not 0
INT8 table of ncnn                    refused: scales of inputs and weights, not of every output
===================================== ==========================================================================
"""

import json
from pathlib import Path

from nvdla_quant.errors import TableError
from nvdla_quant.table.cache import read_cache
from nvdla_quant.table.table import CalibrationTable, read_table


def read_scales(path: Path) -> CalibrationTable:
    """Read the scales in `path`, names as they stand there, whatever the form.

    Raises
    ------
    CacheError, TableError
        The file is of none of the forms, malformed, or its numbers mean something else; the message says what it is.
    OSError
        The file cannot be read.
    """
    if not path.read_bytes().lstrip().startswith((b"{", b"[")):
        return CalibrationTable(read_cache(path).scales)
    table = read_table(path)
    entries = json.loads(path.read_text(encoding="utf-8"))
    if shifted := [name for name, entry in entries.items() if entry.get("offset", 0) != 0]:
        raise TableError(
            f"{path}: entry {shifted[0]!r} has offset {entries[shifted[0]]['offset']}: an asymmetric scale. NVDLA's "
            "int8 has no offsets, and nvdla_compiler ignores them; calibrate symmetrically"
        )
    return table
