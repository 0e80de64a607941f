"""What a program can check in docs/hardware: numbers, tables of fields, and the sources that are named.

usage: python -m tests.hardware.pages                  write the computed blocks anew
       python -m tests.hardware.pages sources HW SW    look up every cited file and function in checkouts

A fenced block behind ``<!-- computed: name -->`` is what a module of `tests.hardware` computes under that name. A table
behind ``<!-- fields: NAME -->`` has the offset, type and name of each field of that dtype of the package, one behind
``<!-- schema: Name -->`` the fields of that table of the flatbuffer's schema. HW and SW are git checkouts of nvdla/hw
(branches nvdlav1 and master as local or remote branches) and nvdla/sw.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from nvdla_quant.loadable import structs
from tests.hardware import files, integers, memory, units
from tests.hardware.examples import EXAMPLES

MODULES = (integers, units, memory, files)
"""Each has put its examples into `EXAMPLES` when it was imported."""
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "hardware"
COMPUTED = re.compile(r"^<!-- computed: (?P<name>[\w-]+) -->\n```text\n(?P<text>.*?)^```$", re.M | re.S)
FIELDS = re.compile(
    r"^<!-- (?P<kind>fields|schema): (?P<name>\w+) -->\n(?P<head>\|.*\n\|.*\n)(?P<rows>(?:\|.*\n)+)", re.M
)
PART = re.compile(r"(?P<tree>hw master|hw|sw) (?P<names>`[^`]+`(?:,? `[^`]+`)*)")
"""In the column of sources: a tree, a file, and functions or other names that stand in it."""
OTHER_SOURCES = {
    "hw": (
        "cmod/include/arnvdla.h",
        "verif/traces/traceplayer/sanity3/input.txn",
        "vmod/nvdla/cdma/NV_NVDLA_CDMA_IMG_ctrl.v",
        "vmod/nvdla/cdma/NV_NVDLA_CDMA_wg.v",
        "vmod/nvdla/pdp/NV_NVDLA_PDP_reg.v",
    ),
    "hw master": (
        "cmod/glb/NV_NVDLA_glb.cpp",
        "spec/defs/README.md",
        "spec/defs/projects.spec",
        "spec/manual/NVDLA_BDMA.rdl",
        "verif/testbench/trace_player/nvdla_tb_intr_handler.sv",
        "verif/tests/trace_tests/nv_small/cdp_1x1x1_lrn3_int8_0/cdp_1x1x1_lrn3_int8_0.cfg",
        "verif/tools/nvdla_trace_parser.py",
        "verif/vip/mem_model/mem_core.svh",
        "vmod/nvdla/cacc/NV_NVDLA_CACC_delivery_buffer.v",
        "vmod/nvdla/cbuf/NV_NVDLA_CBUF.h",
        "vmod/nvdla/cdma/NV_NVDLA_CDMA_dc.v",
        "vmod/nvdla/cdma/NV_NVDLA_CDMA_wt.v",
        "vmod/nvdla/csc/NV_NVDLA_CSC.h",
        "vmod/nvdla/csc/NV_NVDLA_CSC_sg.v",
        "vmod/nvdla/pdp/NV_NVDLA_PDP_CORE_cal2d.v",
    ),
    "sw": (
        "kmd/firmware/engine_isr.c",
        "kmd/firmware/include/opendla_initial.h",
        "kmd/firmware/include/opendla_small.h",
        "umd/apps/runtime/DlaImage.cpp",
        "umd/apps/runtime/DlaImage.h",
        "umd/apps/runtime/RuntimeTest.cpp",
        "umd/apps/runtime/RuntimeTest.h",
        "umd/apps/runtime/main.cpp",
        "umd/core/include/nvdla/ILoadable.h",
        "umd/core/src/common/Check.cpp",
        "umd/core/src/common/ErrorLogging.c",
        "umd/core/src/compiler/engine-ast/BatchNormOp.cpp",
        "umd/core/src/compiler/engine-ast/SDPSuperOp.cpp",
        "umd/port/linux/nvdla.c",
    ),
}
"""Files that comments of the code name, and no page: the test of citations knows these and those of the pages."""


def pages() -> Iterator[tuple[Path, str]]:
    """Yield every page and its text."""
    for path in sorted(FOLDER.glob("*.md")):
        yield path, path.read_text(encoding="utf-8")


def filled(text: str) -> str:
    """Return the page with its computed blocks as they should be."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- computed: {match['name']} -->\n```text\n{EXAMPLES[match['name']]()}\n```"

    return COMPUTED.sub(block, text)


def fields_of(dtype: np.dtype[np.void]) -> list[tuple[str, str, str]]:
    """Return (offset, type, name) of each field."""
    assert dtype.fields is not None
    assert dtype.names is not None
    return [(str(dtype.fields[name][1]), type_of(dtype[name]), name) for name in dtype.names]


def is_record(name: str) -> bool:
    """Return whether `structs` has a record of this name."""
    found = getattr(structs, name)
    return isinstance(found, np.dtype) and found.names is not None


def type_of(dtype: np.dtype[np.generic]) -> str:
    """Return how the documentation writes a field's type: `u8`, `i16`, `cube`, `u8 x 3`."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{type_of(base)} x {shape[0]}"
    for name in ("CUBE", "CVT", "CONSUMER", "SDP_UNIT", "BDMA_TRANSFER", "EMU_BUFFER"):
        if dtype == getattr(structs, name):
            return name.lower()
    return f"{dtype.kind}{8 * dtype.itemsize}"


def schema_of(name: str) -> list[tuple[str, str]]:
    """Return (name, type) of each field of a table of the schema."""
    schema = Path(structs.__file__).with_name("schema.fbs").read_text(encoding="utf-8")
    body = re.search(rf"^(?:table|struct) {name} \{{\n(.*?)^\}}", schema, re.M | re.S)
    assert body is not None, name
    return re.findall(r"^  (\w+) : ([\[\]\w]+)", body[1], re.M)


def expected_fields(kind: str, name: str) -> list[tuple[str, ...]]:
    """Return the first columns of a table of fields."""
    if kind == "schema":
        return [*schema_of(name)]
    return [*fields_of(getattr(structs, name))]


def rows_of(table: str, columns: int) -> list[tuple[str, ...]]:
    """Return the first columns of the rows of a table, without backticks."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return [tuple(cell.strip("`") for cell in row[:columns]) for row in rows]


def cited_sources() -> Iterator[tuple[Path, str, str, tuple[str, ...]]]:
    """Yield (page, tree, file, names) for each source that a page names."""
    for path, text in pages():
        for match in PART.finditer(re.sub(r"\s+", " ", text)):
            file, *names = re.findall(r"`([^`]+)`", match["names"])
            yield path, match["tree"], file, tuple(names)


def missing_sources(checkouts: Mapping[str, Path]) -> Iterator[str]:
    """Yield a sentence for each source that is not where a page or a comment says."""
    comments = ((FOLDER, tree, file, ()) for tree, files in OTHER_SOURCES.items() for file in files)
    for path, tree, file, names in dict.fromkeys([*cited_sources(), *comments]):
        folder = checkouts[tree.split()[0]]
        branches = ("nvdlav1", "origin/nvdlav1") if tree == "hw" else ("master", "origin/master")
        texts = (show(folder, branch, file) for branch in branches)
        text = next((text for text in texts if text is not None), None)
        if text is None:
            yield f"{path.name}: {tree} has no {file}"
        else:
            for name in names:
                if name not in text:
                    yield f"{path.name}: {name} does not stand in {tree} {file}"


def show(folder: Path, branch: str, file: str) -> str | None:
    """Return the text of a file of a branch, or the names in a folder; None where there is none."""
    done = subprocess.run(["git", "-C", folder, "show", f"{branch}:{file}"], capture_output=True)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["sources"]:
        hw, sw = map(Path, sys.argv[2:4])
        found = list(missing_sources({"hw": hw, "sw": sw}))
        print(*found, f"{len(set(cited_sources()))} citations, {len(found)} not found", sep="\n")
        sys.exit(bool(found))
    for path, text in pages():
        path.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
