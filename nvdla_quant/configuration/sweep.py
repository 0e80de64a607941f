"""Sweeps: records that stand for several, what those are called, and rules that pick runs.

A list in place of a value makes one record for each item; several lists make all combinations.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

Record = Mapping[str, Any]

EQUALIZED = "fold-equalize"
"""The preparation that changes ranges, so that its network is calibrated itself; its folder's name too."""
CALIBRATOR_KEYS = {"images": "images", "batch_size": "batch", "percentile": "", "seed": "seed"}
"""Keys of a calibrator that may hold a list, and the word that each adds to the name."""
VARIANT_KEYS = (
    *("mode", "calibrator", "preparation", "feeding", "unify_scales", "correction", "rounding", "search"),
    *("compiler", "runtime"),
)
"""Keys of a variant that may hold a list."""


def combinations(record: Record, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield `record` with each combination of the items of the lists under `keys`, the last key fastest."""
    swept = [key for key in keys if isinstance(record.get(key), list)]
    for values in product(*(record[key] for key in swept)):
        yield {**record, **dict(zip(swept, values, strict=True))}


def calibrators(name: str, record: Record) -> dict[str, dict[str, Any]]:
    """Return the calibrators that `record` stands for, by name.

    Each list adds a word and the item to the name: ``entropy`` with ``images: [8, 16]`` is ``entropy-images-8`` and
    ``entropy-images-16``. The point of a percentile becomes a ``p``, since names are words joined by hyphens.
    """
    found = {}
    for single in combinations(record, tuple(CALIBRATOR_KEYS)):
        parts = [name]
        for key, word in CALIBRATOR_KEYS.items():
            if isinstance(record.get(key), list):
                parts += [word] * bool(word) + [str(single[key]).replace(".", "p")]
        found["-".join(parts)] = single
    return found


def without(name: str, word: str, item: Any) -> str:
    """Return a calibrator's `name` without what a list of items under the key `word` added to it."""
    parts, added = name.split("-"), [word, str(item)]
    places = [i for i in range(1, len(parts)) if parts[i : i + 2] == added]
    return "-".join(parts[: places[-1]] + parts[places[-1] + 2 :]) if places else name


def calibration_folder(calibrator: str, preparation: str) -> str:
    """Return the folder of a calibrator's cache, below a case's: that of the equalized network is one of its own."""
    return f"calibration/{calibrator}" + (f"/{EQUALIZED}" if preparation == EQUALIZED else "")


def calibration_name(calibrator: str, preparation: str) -> str:
    """Return what a calibrator's scales go by in a report; with a space no other calibrator can be called so."""
    return calibrator + (f" {EQUALIZED}" if preparation == EQUALIZED else "")


def matches(rule: Record, axes: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a run is one that `rule` picks: for each key, a pattern fits one of the run's names.

    Parameters
    ----------
    rule : Mapping
        A pattern, with ``*``, ``?`` and ``[...]`` as in a shell, or a list of them, by axis.
    axes : Mapping
        What a run is called on each axis; a calibrator goes by its own name and by its family's.
    """
    return all(
        any(fnmatchcase(name, pattern) for name in axes[key] for pattern in _as_list(patterns))
        for key, patterns in rule.items()
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
