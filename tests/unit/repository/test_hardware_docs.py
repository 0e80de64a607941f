"""docs/hardware: numbers are computed, tables of fields are the package's, links and sources lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.hardware import pages as docs
from tests.hardware.examples import EXAMPLES

PAGES = dict(docs.pages())
LINK = re.compile(r"\]\((?P<file>[\w./-]*)(?:#(?P<anchor>[\w-]+))?\)")


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_computed_blocks_are_what_the_package_computes(path: Path) -> None:
    for match in docs.COMPUTED.finditer(PAGES[path]):
        assert match["text"].rstrip("\n") == EXAMPLES[match["name"]](), "run: python -m tests.hardware.pages"


def test_every_example_stands_in_one_block() -> None:
    marks = [mark for text in PAGES.values() for mark in re.findall(r"^<!-- computed: ([\w-]+) -->$", text, re.M)]
    blocks = [match["name"] for text in PAGES.values() for match in docs.COMPUTED.finditer(text)]
    assert sorted(marks) == sorted(blocks) == sorted(EXAMPLES)


def test_a_stale_number_is_found() -> None:
    text = PAGES[docs.FOLDER / "integers.md"]
    stale = text.replace("rnd(x, s)\n  5  1      2.5          3", "rnd(x, s)\n  5  1      2.5          2")
    assert stale != text
    assert docs.filled(stale) == text == docs.filled(text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_tables_of_fields_are_complete_and_explained(path: Path) -> None:
    for match in docs.FIELDS.finditer(PAGES[path]):
        expected = docs.expected_fields(match["kind"], match["name"])
        assert docs.rows_of(match["rows"], len(expected[0])) == expected, match["name"]


def test_every_descriptor_and_table_is_described() -> None:
    found = {(m["kind"], m["name"]) for text in PAGES.values() for m in docs.FIELDS.finditer(text)}
    marks = [mark for text in PAGES.values() for mark in re.findall(r"^<!-- (fields|schema): (\w+) -->$", text, re.M)]
    assert len(marks) == len(set(marks)) == len(found)
    records = {name for name in vars(docs.structs) if name[0].isupper() and docs.is_record(name)}
    # A pair of buffers, source and destination.
    assert {name for kind, name in found if kind == "fields"} == records - {"EMU_BUFFERS"}
    schema = (Path(docs.structs.__file__).with_name("schema.fbs")).read_text(encoding="utf-8")
    tables = set(re.findall(r"^table (\w+)", schema, re.M)) - {"Loadable"}
    assert {name for kind, name in found if kind == "schema"} == tables


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for match in LINK.finditer(PAGES[path]):
        target = (path.parent / match["file"]).resolve() if match["file"] else path
        assert target.is_file(), match[0]
        if match["anchor"]:
            assert match["anchor"] in anchors(target.read_text(encoding="utf-8")), match[0]


def test_the_index_names_every_page() -> None:
    index = PAGES[docs.FOLDER / "README.md"]
    assert {match["file"] for match in LINK.finditer(index)} >= {path.name for path in PAGES} - {"README.md"}


@pytest.mark.parametrize("path", sorted(set(PAGES) - {docs.FOLDER / "README.md"}), ids=lambda path: path.name)
def test_every_page_ends_with_its_sources(path: Path) -> None:
    """Each rule of the table has a source, a file of NVIDIA's or of this clone, and says how it was checked."""
    rows = docs.rows_of(PAGES[path].partition("\n## Sources\n\n")[2].split("\n\n")[0], 3)[2:]
    assert rows
    for rule, source, checked in rows:
        assert rule
        assert docs.PART.search(source) or LINK.search(source) or source.startswith("the same files"), rule
        assert checked


def test_sources_are_files_of_nvidias_repositories() -> None:
    """Whether they are there only checkouts can say: ``python -m tests.hardware.pages sources HW SW``."""
    cited = list(docs.cited_sources())
    assert len(cited) > 100
    roots = {"hw": ("cmod", "spec", "vmod"), "sw": ("kmd", "umd")}
    for _, tree, file, names in cited:
        assert file.split("/")[0] in roots[tree.split()[0]], file
        assert all(re.fullmatch(r"[\w:()]+", name) for name in names), names
