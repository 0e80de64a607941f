"""Names of our layers and tensors: those of the ONNX values, made unique, and safe where they are not."""

import hashlib

LONGEST = 200
"""Characters of a name: file names end at 255 bytes, and something may stand before and behind it."""


class Names:
    """Gives names; each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, wanted: str) -> str:
        """Return `wanted` if it is free and safe, else a name made of it."""
        name = safe(wanted)
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def is_free(self, wanted: str) -> bool:
        """Whether nothing has this name."""
        return safe(wanted) not in self._taken


def safe(name: str) -> str:
    """Return `name` for JSON, tables and file names: printable, without blanks around it, and not too long."""
    text = printable(name).strip() or "unnamed"
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 9]}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def printable(text: str) -> str:
    """Return `text` with a line below where something cannot be printed on one line."""
    return "".join(character if character.isprintable() else "_" for character in text)


def is_within(inner: str | None, outer: str | None) -> bool:
    """Whether a value is one that the layer of another needs within itself, by its name.

    Our writer calls such values ``<layer>:<what>``; `outer` is the layer's own value, or another such one.
    """
    layer = (inner or "").rstrip(":").rpartition(":")[0]
    return bool(layer) and (outer == layer or (outer or "").startswith(f"{layer}:"))
