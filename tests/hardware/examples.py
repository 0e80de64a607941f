"""The worked numbers of docs/hardware: what each block behind a ``computed`` mark holds, by name, from the package.

The modules beside this one register them; `tests.hardware.pages` writes them into the pages.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

EXAMPLES: dict[str, Callable[[], str]] = {}


def example(function: Callable[[], str]) -> Callable[[], str]:
    """Register `function` under its name, with hyphens."""
    EXAMPLES[function.__name__.replace("_", "-")] = function
    return function


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return columns side by side, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(_numeric(row[i]) for row in cells[1:]) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    )


def _numeric(cell: str) -> bool:
    return cell == "" or cell.replace(",", "").lstrip("-+0123456789.")[:2] in ("", "e-", "e+")


def ints(*values: int) -> NDArray[np.int64]:
    """Return an int64 array."""
    return np.array(values, np.int64)


def joined(values: Iterable[object]) -> str:
    """Return values with spaces between."""
    return " ".join(map(str, values))


def bits(value: float) -> int:
    """Return the bits of a half."""
    return int(np.float16(value).view(np.uint16))


def single(pattern: int) -> np.float32:
    """Return the number of fp32 bits."""
    return np.array([pattern], np.uint32).view(np.float32)[0]
