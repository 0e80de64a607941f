"""The rooms of the package: who may import whom, how large a file is, how many stand in a folder."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "nvdla_quant"
Node = TypeVar("Node")
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "hardware": set(),
    "timing": {"hardware"},
    "loadable": set(),
    "jobs": set(),
    "configuration": {"hardware", "jobs"},
    "network": {"hardware"},
    "images": {"jobs"},
    "planning": {"configuration", "network"},
    "emulator": {"hardware", "loadable", "jobs"},
    "registers": {"hardware", "loadable", "emulator"},
    "estimation": {"hardware", "timing", "loadable", "emulator", "registers"},
    "support": {"hardware", "network"},
    "table": {"jobs", "network"},
    "compiler": {"hardware", "timing", "loadable", "jobs", "network", "support", "table"},
    "execution": {"hardware", "network", "table"},
    "calibration": {"jobs", "network", "images", "emulator", "table", "execution"},
    "runtime": {"hardware", "loadable", "jobs", "configuration", "images", "emulator"},
    "quantization": {
        *("hardware", "loadable", "jobs", "network", "images", "emulator", "table", "compiler", "execution", "runtime"),
    },
    "verification": {"hardware", "loadable", "jobs", "network", "emulator", "table", "compiler", "execution"},
    "evaluation": {"jobs", "network", "table"},
    "report": {"jobs", "configuration", "table", "evaluation"},
    "steps": {
        *("hardware", "loadable", "jobs", "network", "images", "planning", "support", "table", "emulator", "compiler"),
        *("execution", "calibration", "runtime", "verification", "evaluation", "report", "timing", "estimation"),
        "quantization",
    },
    "cli": {
        *("hardware", "loadable", "jobs", "network", "support", "table", "emulator", "compiler"),
        *("calibration", "runtime", "quantization", "verification", "registers", "timing", "estimation"),
    },
    "__main__": {"cli"},
}
"""From below: a room imports only from rooms further up in this list, and only these; each may import `errors`."""
JUDGED_AND_JUDGE = {"errors", "hardware", "timing", "loadable", "jobs"}
"""All that the compiler and the emulator share, by whatever way: one judges the other."""
LOOSE = {"__init__.py", "__main__.py", "errors.py", "py.typed"}
GENERATED = {"schema_generated.py", "caffe_pb2.py", "caffe_pb2.pyi"}
LINES, FILES = 500, 12
"""How long a file is at most, and how many stand in a folder, `__init__.py` not counted."""


def name_of(path: Path) -> str:
    """Return the dotted name of a module, from the package on."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by the names of their modules."""
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports name their module in full"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules() else str(node.module) for name in within if node.module in modules())


def room_of(module: str) -> str:
    """Return the top-level folder or module of the package that a module belongs to; none for the package itself."""
    return module.split(".")[1] if "." in module else ""


@cache
def neighbours() -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    return {module: set(imports(path)) - {module, "nvdla_quant"} for module, path in modules().items()}


def reach(room: str) -> set[str]:
    """Return the rooms that a room imports, those of their imports too."""
    found: set[str] = set()
    waiting = [module for module in modules() if room_of(module) == room]
    while waiting:
        new = neighbours()[waiting.pop()] - found
        found |= new
        waiting += new
    return {room_of(module) for module in found} - {room}


def circles(imported: Mapping[Node, set[Node]]) -> dict[Node, set[Node]]:
    """Return what is left when all is taken away that imports nothing that is left."""
    left = dict(imported)
    while free := {one for one, others in left.items() if not others}:
        left = {one: others - free for one, others in left.items() if one not in free}
    return left


def test_every_room_is_in_the_table() -> None:
    assert {room_of(module) for module in modules()} - {""} == set(MAY_IMPORT)


def test_doors_open_one_way() -> None:
    """So there is no circle of rooms."""
    rooms = list(MAY_IMPORT)
    for room, allowed in MAY_IMPORT.items():
        assert allowed <= set(rooms[: rooms.index(room)]), room


@pytest.mark.parametrize("module", modules())
def test_rooms_import_what_they_may(module: str) -> None:
    room = room_of(module)
    if not room:
        assert not neighbours()[module]
        return
    for other in neighbours()[module]:
        assert room_of(other) in {room, "errors"} | MAY_IMPORT[room], f"{module} imports {other}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert not circles(neighbours())


def test_no_folder_in_a_room_imports_itself_by_way_of_others() -> None:
    """What lies in the room itself may be above them or below: who puts the parts together, and what all share."""
    folders = {module: path.parent for module, path in modules().items() if len(path.relative_to(PACKAGE).parts) > 2}
    imported: dict[Path, set[Path]] = {folder: set() for folder in folders.values()}
    for module, folder in folders.items():
        imported[folder] |= {folders[other] for other in neighbours()[module] if other in folders} - {folder}
    assert not circles(imported)


def test_the_judge_shares_nothing_with_the_judged() -> None:
    assert reach("compiler") & reach("emulator") <= JUDGED_AND_JUDGE
    assert "emulator" not in reach("compiler")
    assert "compiler" not in reach("emulator")


def test_nothing_lies_about() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == LOOSE


def test_files_are_short() -> None:
    for path in modules().values():
        if path.name not in GENERATED:
            assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES, path


def test_rooms_are_not_crowded() -> None:
    for folder in {path.parent for path in modules().values()}:
        count = sum(path.is_file() and path.name != "__init__.py" for path in folder.iterdir())
        assert count <= FILES, folder
