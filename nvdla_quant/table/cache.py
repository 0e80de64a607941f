"""The calibration cache: TensorRT's text file of activation scales.

Line 1 is a header, ``TRT-<version>-<algorithm>`` where TensorRT wrote it. Each further line is ``name: hex``, the
big-endian IEEE-754 float32 of ``scale = T / 127``, T the clipping threshold of that tensor; leading zeros may be
missing. Layer names may hold ``": "``, so the value stands after the last one.
"""

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nvdla_quant import __version__
from nvdla_quant.errors import CacheError, NcnnTableError
from nvdla_quant.jobs.files import write_text

_VALUE = re.compile(r"[0-9a-fA-F]{1,8}\Z")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_WEIGHTS_OF_NCNN = re.compile(r"_param_\d+\Z")
_NCNN_LINE = re.compile(rf"\S+(?:\s+{_NUMBER})+\s*\Z")


@dataclass(frozen=True)
class CalibrationCache:
    """Scales by tensor name, as a calibrator wrote them.

    Attributes
    ----------
    header : str
        First line: who wrote the cache, and how. Kept as it was read.
    entries : tuple[tuple[str, float], ...]
        (tensor name, scale), in order; names are unique. A scale is the real value of one int8 step: finite, positive
        and rounded to float32.
    is_table : bool
        Whether it was a table in JSON, which says nothing of who calibrated.
    by_layer : bool
        Whether the names of such a table are those of layers.
    zeros : tuple[str, ...]
        Names whose scale is 0, as TensorRT writes where it saw nothing but zeros; nothing can be quantized with them.
    """

    header: str
    entries: tuple[tuple[str, float], ...]
    is_table: bool = False
    by_layer: bool = False
    zeros: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Round the scales to float32, and refuse what cannot be written or used."""
        _check_text("the header", self.header)
        if _split_entry(self.header) is not None:
            raise CacheError(
                f"calibration cache: the header {self.header!r} reads as an entry; name who wrote the cache"
            )
        if self.zeros and not self.entries:
            raise CacheError(
                f"calibration cache: entry {self.zeros[0]!r} has scale 0.0, as all others: the calibrator saw nothing "
                "but zeros; check the images and the weights, and calibrate again"
            )
        if not self.entries:
            raise CacheError("calibration cache: no entries, expected one for each tensor; calibrate again")
        entries = tuple((name, _float32(name, scale)) for name, scale in self.entries)
        seen: set[str] = set()
        for name in (*(name for name, _ in entries), *self.zeros):
            _check_text(f"entry {name!r}", name)
            if name in seen:
                raise CacheError(f"calibration cache: entry {name!r} stands twice; remove the wrong one")
            seen.add(name)
        object.__setattr__(self, "entries", entries)

    @property
    def what(self) -> str:
        """What the scales were read from, for messages."""
        return self.header if self.is_table else f"calibration cache ({self.header})"

    @property
    def scales(self) -> dict[str, float]:
        """Scales by tensor name, in order."""
        return dict(self.entries)


def our_header(method: str) -> str:
    """Return the header of a cache that this package calibrated with `method`; it never claims to be TensorRT's."""
    return f"nvdla-quant-{__version__}-{method}"


def read_cache(path: Path) -> CalibrationCache:
    """Read the calibration cache in `path`, whoever wrote it.

    Raises
    ------
    CacheError
        Not text, empty, cut short, a line that is no entry, a name that stands twice, a scale that is negative or not
        finite, scales of 0 alone, or a table of ncnn or onnxruntime. The message names the file and the line or entry.
    OSError
        The file cannot be read.
    """
    try:
        return parse_cache(path.read_bytes())
    except CacheError as error:
        raise type(error)(f"{path}: {error}") from error


def parse_cache(content: bytes) -> CalibrationCache:
    """Decode the bytes of a calibration cache; see `read_cache` for the errors."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CacheError(f"not text (byte {error.start} is not UTF-8), expected a calibration cache") from error
    if "\0" in text:
        raise CacheError(f"not text (byte {content.index(0)} is zero), expected a calibration cache")
    if not text.strip():
        raise CacheError("empty file, expected a calibration cache; calibrate again")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    ended = lines[-1] == ""
    while lines[-1] == "":
        lines.pop()
    _refuse_others(lines)
    if _split_entry(lines[0]) is not None:
        raise CacheError(
            f"line 1: {lines[0]!r} is an entry, expected a header such as 'TRT-8503-EntropyCalibration2'; "
            "the first line is missing"
        )
    entries = []
    for number, line in enumerate(lines[1:], start=2):
        entry = _split_entry(line)
        # A cut through the digits leaves fewer than eight and no line end; TensorRT ends each line.
        cut = number == len(lines) and not ended and (entry is None or len(entry[1]) < 8)
        if cut:
            raise CacheError(
                f"line {number}: {line!r} is cut short, expected 'name: hex' with 8 digits; copy the file again"
            )
        if entry is None:
            raise CacheError(
                f"line {number}: {line!r} is not an entry, expected 'name: hex' (1 to 8 hexadecimal digits)"
            )
        name, digits = entry
        entries.append((name, float(struct.unpack(">f", bytes.fromhex(digits.rjust(8, "0")))[0])))
    zeros = tuple(name for name, scale in entries if scale == 0)
    return CalibrationCache(lines[0], tuple(entry for entry in entries if entry[1] != 0), zeros=zeros)


def format_cache(cache: CalibrationCache) -> str:
    """Return `cache` as text; `parse_cache` gives it back."""
    entries = (*cache.entries, *((name, 0.0) for name in cache.zeros))
    lines = [cache.header, *(f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in entries)]
    return "\n".join(lines) + "\n"


def write_cache(cache: CalibrationCache, path: Path) -> None:
    """Write `cache` to `path`, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    write_text(path, format_cache(cache))


def _split_entry(line: str) -> tuple[str, str] | None:
    """Return (name, digits) of an entry, or None where `line` is none."""
    name, separator, digits = line.rpartition(": ")
    if not separator or not name or not _VALUE.match(digits):
        return None
    return name, digits


def _check_text(what: str, text: str) -> None:
    """Refuse what would not come back from a file of lines."""
    if not text.strip() or "\0" in text or "\n" in text or text.endswith("\r"):
        raise CacheError(f"calibration cache: {what} is {text!r}, expected one line of text")


def _float32(name: str, scale: float) -> float:
    """Return `scale` rounded to float32."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(scale))
    if not (math.isfinite(rounded) and rounded > 0):
        raise CacheError(f"calibration cache: entry {name!r} has scale {scale}, expected a finite float32 above 0")
    return rounded


def _refuse_others(lines: list[str]) -> None:
    """Recognise the tables of ncnn and onnxruntime, which are text too: ``name number ...`` without a header.

    ncnn's has the scales of weights as well, ``layer_param_0``; onnxruntime's one number a tensor.
    """
    tables = [line for line in lines if line.strip()]
    if not all(_NCNN_LINE.match(line) for line in tables):
        return
    fields = [line.split() for line in tables]
    if all(len(field) == 2 and not _WEIGHTS_OF_NCNN.search(field[0]) for field in fields):
        raise CacheError(
            f"line 1: {tables[0][:60]!r}: this is a text table as onnxruntime writes it (write_calibration_table: a "
            "tensor's name and the largest magnitude in it), not a calibration cache of TensorRT. Its names are those "
            "of an ONNX model's tensors, and it has no entry for what onnxruntime does not quantize. Calibrate the "
            "network with `nvdla-quant calibrate` or TensorRT; or write JSON, an entry for each layer and the input: "
            '{name of the layer: {"scale": number / 127}, ...}'
        )
    raise NcnnTableError(
        f"line 1: {tables[0][:60]!r}: this is an INT8 table of ncnn (caffe-int8-convert-tools), not a calibration "
        "cache. It holds 127 / T of what each convolution and fully connected layer reads, and scales of weights; "
        "NVDLA needs the scale of what every layer writes, and nothing says that of the last of them. Calibrate "
        "the network with `nvdla-quant calibrate` or TensorRT"
    )
