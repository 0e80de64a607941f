"""Digests of code follow imports exactly; manifests hold no times."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from nvdla_quant.errors import ConfigError, ReportError
from nvdla_quant.jobs.provenance import (
    DISTRIBUTIONS,
    PACKAGE,
    command_to_repeat,
    differences,
    file_digest,
    git_state,
    manifest,
    read_manifest,
    software,
    source_digest,
    source_files,
)

SOURCES = {
    "__init__.py": "",
    "errors.py": "class E(Exception): ...",
    "alone.py": "import os",
    "table/__init__.py": "",
    "table/names.py": "from pkg.errors import E",
    "table/table.py": "from . import names\nfrom ..errors import E",
    "deep/__init__.py": "from pkg.deep.inner import value",
    "deep/inner.py": "value = 1",
    "late.py": "def f():\n    import pkg.deep\n    from pkg import alone",
    "ring_a.py": "import pkg.ring_b",
    "ring_b.py": "from pkg.ring_a import f",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "pkg"
    for name, content in SOURCES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("pkg", {"__init__.py"}),
        ("pkg.alone", {"__init__.py", "alone.py"}),
        ("pkg.table.names", {"__init__.py", "table/__init__.py", "table/names.py", "errors.py"}),
        ("pkg.table.table", {"__init__.py", "table/__init__.py", "table/table.py", "table/names.py", "errors.py"}),
        ("pkg.deep.inner", {"__init__.py", "deep/__init__.py", "deep/inner.py"}),
        ("pkg.late", {"__init__.py", "late.py", "deep/__init__.py", "deep/inner.py", "alone.py"}),
        ("pkg.ring_a", {"__init__.py", "ring_a.py", "ring_b.py"}),
    ],
)
def test_closure_is_the_modules_own_imports(package: Path, module: str, expected: set[str]) -> None:
    """Each set follows from reading SOURCES."""
    files = {path.relative_to(package).as_posix() for path in source_files(module, package=package)}
    assert files == expected
    for name in SOURCES:
        before = source_digest(module, package=package)
        (package / name).write_text(SOURCES[name] + "\n# edited")
        changed = source_digest(module, package=package) != before
        (package / name).write_text(SOURCES[name])
        assert changed == (name in expected), name
        assert source_digest(module, package=package) == before


def test_a_script_is_followed_and_counts_itself(package: Path, tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text("import numpy\nfrom pkg.table import names")
    files = source_files(script, package=package)
    assert {path.name for path in files} == {"step.py", "__init__.py", "names.py", "errors.py"}
    before = source_digest(script, package=package)
    assert source_digest(str(script), package=package) == before
    assert re.fullmatch("[0-9a-f]{12}", before)
    script.write_text("import numpy\nfrom pkg.table import names\n")
    assert source_digest(script, package=package) != before


def test_digest_does_not_depend_on_the_place_or_on_times(package: Path, tmp_path: Path) -> None:
    before = source_digest("pkg.late", package=package)
    os.utime(package / "late.py", (1, 1))
    assert source_digest("pkg.late", package=package) == before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    package.rename(moved / "pkg")
    assert source_digest("pkg.late", package=moved / "pkg") == before


def test_unknown_modules_and_scripts_are_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pkg\.nothing"):
        source_digest("pkg.nothing", package=package)
    with pytest.raises(ConfigError, match=r"nothing\.py"):
        source_digest(tmp_path / "nothing.py", package=package)


def test_this_package_is_followed_and_fast() -> None:
    files = {path.relative_to(PACKAGE).as_posix() for path in source_files("nvdla_quant.runtime.dimg")}
    assert files == {
        "__init__.py", "errors.py", "jobs/__init__.py", "jobs/files.py", "runtime/__init__.py", "runtime/dimg.py",
    }  # fmt: skip
    software()
    start = time.process_time()
    for _ in range(10):
        source_digest("nvdla_quant.runtime.dimg")
    assert (time.process_time() - start) / 10 < 0.02


def test_nothing_is_imported(tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text("import nvdla_quant.table.table\nraise SystemExit(1)")
    code = (
        "import sys; from nvdla_quant.jobs.provenance import source_digest; source_digest(sys.argv[1]);"
        "assert 'nvdla_quant.table.table' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(script)], check=True, cwd=PACKAGE.parent)


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_manifest_lists_digests_and_is_the_same_twice(tmp_path: Path) -> None:
    for name in ("b.bin", "a.bin", "model.bin"):
        (tmp_path / name).write_bytes(name.encode())

    def make() -> dict[str, object]:
        return manifest(
            inputs=[tmp_path / "model.bin"],
            artefacts=[tmp_path / "b.bin", tmp_path / "a.bin"],
            config={"models": ["lenet"]},
            command="snakemake",
            base=tmp_path,
            processor_dependent=[tmp_path / "b.bin"],
        )

    first = make()
    assert list(first["artefacts"]) == ["a.bin", "b.bin"]  # type: ignore[call-overload]
    assert first["artefacts"]["a.bin"] == {  # type: ignore[index]
        "bytes": 5,
        "sha256": hashlib.sha256(b"a.bin").hexdigest(),
    }
    assert first["artefacts"]["b.bin"]["processor_dependent"] is True  # type: ignore[index]
    assert list(first["inputs"]) == ["model.bin"]  # type: ignore[call-overload]
    assert first["config"] == {"models": ["lenet"]}
    assert json.dumps(make()) == json.dumps(first)
    with pytest.raises(ConfigError, match=r"model\.bin"):
        manifest(
            inputs=[], artefacts=[], config={}, command="", base=tmp_path, processor_dependent=[tmp_path / "model.bin"]
        )


def test_a_folder_of_images_is_digested_as_a_whole(tmp_path: Path) -> None:
    """The digest of "name NUL digest-of-content newline" for each file, sorted by name."""
    folder = tmp_path / "images"
    (folder / "cats").mkdir(parents=True)
    (folder / "z.png").write_bytes(b"22")
    (folder / "cats" / "1.png").write_bytes(b"1")
    rows = [("cats/1.png", b"1"), ("z.png", b"22")]
    text = "".join(f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in rows)
    found = manifest(inputs=[folder], artefacts=[], config={}, command="", base=tmp_path)["inputs"]
    assert found == {"images": {"files": 2, "bytes": 3, "sha256": hashlib.sha256(text.encode()).hexdigest()}}


def test_differences_and_their_causes() -> None:
    """Another class of processor explains what follows from fp32 sums, and nothing else."""

    def made(simd: list[str], numpy: str = "1", **digests: str) -> dict[str, object]:
        listed = {name: {"sha256": digest, "processor_dependent": name == "scores"} for name, digest in digests.items()}
        parts = {"nvdla_quant": {"source": "s"}, "distributions": {"numpy": numpy}, "machine": "x", "simd": simd}
        return {"command": "", "software": parts, "config": {}, "inputs": {}, "artefacts": listed}

    first = made(["AVX2"], scores="1", images="1", gone="1")
    assert differences(first, first) == []
    assert differences(first, made(["AVX512F"], scores="2", images="2")) == [
        ("gone", "only in the first"),
        ("images", "nothing that the manifests record: please report it"),
        ("scores", "class of processor: fp32 sums may differ in the last bits"),
    ]
    assert differences(first, made(["AVX2"], "2", scores="2", images="1", gone="1")) == [
        ("scores", "versions of numpy")
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"command": ""}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ReportError, match=r"manifest\.json: not a manifest"):
        read_manifest(tmp_path / "manifest.json")


def test_distributions_are_those_of_pyproject(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert sorted(re.split(r"[\[<>=!]", line)[0] for line in project["dependencies"]) == list(DISTRIBUTIONS)
    assert set(software()["distributions"]) == set(DISTRIBUTIONS)


def test_the_command_to_repeat(tmp_path: Path) -> None:
    """The default configuration is not named, one below the folder is relative, and a shell takes it as it is."""
    default, mine = tmp_path / "config.yaml", tmp_path / "config" / "my own.yaml"
    assert command_to_repeat([default], {}, tmp_path) == "snakemake"
    assert command_to_repeat([default, mine, "/etc/a.yaml"], {"shards": 2, "targets": ["nv_full"]}, tmp_path) == (
        "snakemake --configfile 'config/my own.yaml' /etc/a.yaml --config shards=2 'targets=['\"'\"'nv_full'\"'\"']'"
    )


def test_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text("1")
    assert git_state(tmp_path / "package") is None
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "untracked").mkdir()
    assert git_state(tmp_path / "package") == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert git_state(tmp_path / "untracked") is None
    (tmp_path / "package" / "a.py").write_text("2")
    assert git_state(tmp_path / "package") == {"commit": git("rev-parse", "HEAD"), "dirty": True}
