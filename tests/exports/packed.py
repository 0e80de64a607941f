"""The networks of `tests/data/exports`, most of them packed by `pack`."""

import lzma
import shutil
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "exports"


def names() -> tuple[str, ...]:
    """Names of the networks, packed or not: ``<network>-<opset>-<exporter>``."""
    return tuple(sorted(path.name.partition(".")[0] for path in FOLDER.glob("*.onnx*")))


def unpack(folder: Path) -> None:
    """Write each network into `folder` as ``NAME.onnx``."""
    for path in FOLDER.glob("*.onnx*"):
        if path.suffix == ".xz":
            (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        else:
            shutil.copyfile(path, folder / path.name)
