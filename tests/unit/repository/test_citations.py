"""Every file that a docstring or comment cites stands in this clone, or in a public repository that is named."""

import ast
import fnmatch
import io
import itertools
import os
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.hardware import pages

CODE = ("nvdla_quant", "tests", "benchmarks", "scripts", "training", "rules", "workflow", "Snakefile")
GENERATED = ("schema_generated.py", "caffe_pb2.py")
NOT_KEPT = {"results", "downloads", "__pycache__", "build", "dist", "node_modules", "venv"}
"""Folders of a clone whose files are nobody's source."""
SOURCES = "md|rst|py|pyi|smk|c|cc|cpp|h|v|vh|svh|spec|fbs|proto|yaml|yml|toml"
"""Kinds of files that must be found; others (tables, archives, images) are mostly made by the workflow."""
FILE = re.compile(rf"(?<![\w/.{{}}<>-])(?:[\w{{}},.*-]+/)*[\w{{}},*-][\w{{}},.*-]*\.(?:{SOURCES})\b(?![\w/(])")
PLACE = re.compile(r"(?<![\w/.{}<>-])[\w.-]+/[\w{},./*-]*[\w}*]")
"""Something with a slash: a citation where it begins with a folder of the clone or of a public repository."""
SECTION = re.compile(r'docs/hardware/(?P<page>[\w-]+\.md)`*,? (?P<sections>"[^"]+"(?:(?:, | and |, and )"[^"]+")*)')
NOTES = re.compile(
    r"\b(?:arithmetic|reference|research|compiler|hardware|project(?:['’]s)?) (?:reference )?notes\b"
    r"|\bnotes['’] (?:own|text|example)\b|\b(?:same|these|those) notes\b|\bnotes, section\b|\.\./shared/reference\b"
)
"""Talk of notes that nobody else has."""


def texts(path: Path) -> Iterator[str]:
    """Yield comments, those of neighbouring lines joined, and strings that stand alone: docstrings of whatever."""
    source = path.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string.lstrip("#:! ")) for token in tokens if token.type == tokenize.COMMENT]
    for _, lines in itertools.groupby(enumerate(comments), lambda item: item[1][0] - item[0]):
        yield " ".join(text for _, (_, text) in lines)
    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                yield " ".join(node.value.value.split())


def code_files() -> Iterator[Path]:
    """Yield the files whose comments are read."""
    for name in CODE:
        place = REPOSITORY / name
        found = [place] if place.is_file() else place.rglob("*")
        yield from sorted(
            path
            for path in found
            if (path.suffix in (".py", ".pyi", ".smk") or path.name == "Snakefile")
            and path.name not in GENERATED
            and not NOT_KEPT & set(path.parts[len(REPOSITORY.parts) :])
        )


@cache
def clone() -> frozenset[str]:
    """Return every file and folder of the clone."""
    found = set()
    for folder, folders, names in os.walk(REPOSITORY):
        inside = Path(folder).relative_to(REPOSITORY)
        folders[:] = [name for name in folders if name not in NOT_KEPT and name not in (".git", ".venv", ".snakemake")]
        found |= {(inside / name).as_posix() for name in (*names, *folders)}
    return frozenset(found)


@cache
def public() -> frozenset[str]:
    """Return the files and folders of nvdla/hw and nvdla/sw that are known to exist, from the repositories' roots."""
    files = {file for _, _, file, _ in pages.cited_sources()}
    files |= {file for listed in pages.OTHER_SOURCES.values() for file in listed}
    folders = {parent.as_posix() for file in files for parent in Path(file).parents}
    return frozenset((files | folders) - {"."})


def expanded(citation: str) -> list[str]:
    """Return a citation with its braces written out: `a.{c,h}` is two files."""
    match = re.search(r"\{([^{}]*,[^{}]*)\}", citation)
    if match is None:
        return [citation]
    parts = match[1].split(",")
    return [one for part in parts for one in expanded(citation[: match.start()] + part + citation[match.end() :])]


@cache
def endings() -> frozenset[str]:
    """Return every path, and what is left of it without its first folders."""
    parts = (path.split("/") for path in clone() | public())
    return frozenset("/".join(path[first:]) for path in parts for first in range(len(path)))


@cache
def can_be_read(citation: str) -> bool:
    """Return whether some path is `citation`, or ends with it; `*` is any part of a name."""
    if "*" in citation:
        paths = (f"/{path}" for path in itertools.chain(clone(), public()))
        return any(fnmatch.fnmatch(path, f"*/{citation}") for path in paths)
    return citation in endings()


@cache
def roots() -> frozenset[str]:
    """Return the names that the path of a citation may begin with."""
    return frozenset(path for path in clone() | public() if "/" not in path and "." not in path)


def citations(text: str) -> set[str]:
    """Return the files and places that `text` cites, without patterns of the workflow's wildcards."""
    found = {match[0] for match in FILE.finditer(text)}
    found |= {match[0] for match in PLACE.finditer(text) if match[0].split("/")[0] in roots()}
    single = {one.rstrip(".,") for citation in found for one in expanded(citation) if not re.search(r"[{}<>]", one)}
    # What the workflow or a test makes has no file of its own here, only its folder.
    return {
        one if FILE.fullmatch(one) or "." not in one.rpartition("/")[2] else one.rpartition("/")[0] for one in single
    }


def unknown(text: str) -> list[str]:
    """Return what `text` cites and nobody can read."""
    return sorted(citation for citation in citations(text) if not can_be_read(citation))


def wrong_sections(text: str) -> list[str]:
    """Return the sections of pages in docs/hardware that `text` names and no page has."""
    wrong = []
    for match in SECTION.finditer(text):
        page = (pages.FOLDER / match["page"]).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", page, re.M)
        wrong += [
            f"{match['page']}: {name}" for name in re.findall(r'"([^"]+)"', match["sections"]) if name not in headings
        ]
    return wrong


@pytest.mark.parametrize("path", [*code_files()], ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_citations_can_be_read(path: Path) -> None:
    for text in texts(path):
        assert not unknown(text), text
        assert not wrong_sections(text), text
        if path != Path(__file__).resolve():
            assert not NOTES.search(text), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("As docs/compiler.md says, and docs/nowhere.md.", ["docs/nowhere.md"]),
        ("nvdla/hw ``cmod/csc`` and ``cmod/hls/sdp/sdp_x.cpp``, kmd/firmware/conv.c:425", []),
        (
            "``kmd/firmware/{pdp,cdp}.c``, ``vmod/nvdla/cdma/NV_NVDLA_CDMA_{dc,no}.v``",
            ["vmod/nvdla/cdma/NV_NVDLA_CDMA_no.v"],
        ),
        ("csc.cpp:1086 (nvdla-compiler.md, section 6)", ["csc.cpp", "nvdla-compiler.md"]),
        ("{target}/{variant}/dumps/{shard}.npz and images/s or 1/65536", []),
        ("see tests/unit/test_nothing.py", ["tests/unit/test_nothing.py"]),
        ("`spec/defs/nv_*.spec`", []),
        ("rules/nothing", ["rules/nothing"]),
    ],
)
def test_what_counts_as_a_citation(text: str, expected: list[str]) -> None:
    assert unknown(text) == expected


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('docs/hardware/buffer.md, "Entries" and "Banks"', []),
        ('docs/hardware/buffer.md, "Entrances"', ["buffer.md: Entrances"]),
        ('docs/hardware/sdp.md (and "Nothing" else)', []),
    ],
)
def test_sections_are_looked_up(text: str, wrong: list[str]) -> None:
    assert wrong_sections(text) == wrong


@pytest.mark.parametrize(
    "text", ["(arithmetic notes, section 3)", "from the notes' text", "the project's reference notes"]
)
def test_talk_of_notes_is_found(text: str) -> None:
    assert NOTES.search(text)


@pytest.mark.parametrize(
    "text", ["notes that say where numbers come from", "a docstring or notes", "as the sheet's notes"]
)
def test_other_notes_are_not(text: str) -> None:
    assert not NOTES.search(text)
