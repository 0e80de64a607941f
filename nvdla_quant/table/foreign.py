"""Scales that others wrote: which form a file has, and whether its numbers mean what a calibration table's mean.

===================================== ==========================================================================
form                                  what becomes of it
===================================== ==========================================================================
calibration cache of any TensorRT     read; NVIDIA's ``resnet50.txt`` is one
JSON of `nvdla_compiler`              read; ``scale``, else ``min`` and ``max``; refused where an ``offset`` is not 0
INT8 table of ncnn                    refused, naming the tensors whose scale it cannot give
text table of onnxruntime             refused: it has the names of an ONNX model
===================================== ==========================================================================

A table of ncnn gives the scale of each tensor that a convolution or fully connected layer reads. More follow: what is
fused into such a tensor, what a pooling or concat binds to it, a final Softmax. The last convolution or fully connected
layer writes what no other reads, so that no network is ever complete.
"""

import codecs
import json
from pathlib import Path

from nvdla_quant.errors import NcnnTableError, TableError
from nvdla_quant.network.graph import Network, Pooling
from nvdla_quant.network.views import VIEWS, viewed
from nvdla_quant.table.cache import CalibrationCache, read_cache
from nvdla_quant.table.consistency import bonds
from nvdla_quant.table.fusion import fused_end
from nvdla_quant.table.naming import layer_names_fit
from nvdla_quant.table.table import CalibrationTable, parse_table

_READERS = ("Convolution", "InnerProduct")
"""Layers that a table of ncnn has entries of."""


def read_scales(path: Path) -> CalibrationTable:
    """Read the scales in `path`, names as they stand there, whatever the form.

    Raises
    ------
    CacheError, TableError
        The file is of none of the forms, malformed, or its numbers mean something else; the message says what it is.
    OSError
        The file cannot be read.
    """
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if not content.lstrip().startswith((b"{", b"[")):
        return CalibrationTable(read_cache(path).scales)
    try:
        table = parse_table(content)
    except TableError as error:
        raise TableError(f"{path}: {error}") from error
    entries = json.loads(content)
    if shifted := [name for name, entry in entries.items() if entry.get("offset", 0) != 0]:
        raise TableError(
            f"{path}: entry {shifted[0]!r} has offset {entries[shifted[0]]['offset']}: an asymmetric scale. NVDLA's "
            "int8 has no offsets, and nvdla_compiler ignores them; calibrate symmetrically"
        )
    return table


def read_cache_of(network: Network, path: Path) -> CalibrationCache:
    """Read the scales of `network` in `path`: a calibration cache, or a table in JSON.

    Names in JSON are a cache's, as `convert-cache` and NVIDIA's script write them, or those of layers; see
    `naming.layer_names_fit`.

    Raises
    ------
    NcnnTableError
        It is an INT8 table of ncnn; the message names the tensors whose scale it cannot give.
    CacheError, TableError
        As `read_scales`.
    OSError
        The file cannot be read.
    """
    if path.read_bytes().removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"{", b"[")):
        scales = read_scales(path).scales
        by_layer = layer_names_fit(scales, network)
        return CalibrationCache(f"table {path}", tuple(scales.items()), is_table=True, by_layer=by_layer)
    try:
        return read_cache(path)
    except NcnnTableError as error:
        raise NcnnTableError(
            f"{error}. Of network {network.name!r} it lacks {', '.join(unmeasured(network))}"
        ) from error


def unmeasured(network: Network) -> tuple[str, ...]:
    """Return the tensors whose scale does not follow from the scales of what convolutions and the like read.

    Of a fused operation the last tensor counts. A pooling's output is at its input's scale, and a maximum is that of
    its input; a concat is at one scale with its inputs. The inputs of a sum are, too, but not at a known one.
    """
    sources = [name for layer in network.layers if layer.kind in _READERS for name in layer.inputs]
    known = {viewed(network, name) for name in sources}
    known |= {output.name for output in network.outputs if network.by_name[output.name].kind == "Softmax"}
    before = 0
    while len(known) > before:
        before = len(known)
        for bond in bonds(network):
            operation = network.by_name[bond.layer].operation
            if bond.output is not None and known.issuperset(bond.sources):
                known.add(bond.output)
            if bond.output in known and not (isinstance(operation, Pooling) and operation.method != "max"):
                known.update(bond.sources)
    needed = [tensor.name for tensor in network.inputs]
    needed += [layer.name for layer in network.layers if not isinstance(layer.operation, VIEWS)]
    return tuple(name for name in dict.fromkeys(fused_end(network, name) for name in needed) if name not in known)
