"""What a result was made from: digests of code, files and environment. Nothing here holds a time or a host name."""

import ast
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from nvdla_quant.errors import ConfigError, ReportError

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the package."""

DISTRIBUTIONS = (
    "altair",
    "flatbuffers",
    "jinja2",
    "jsonschema",
    "llvmlite",
    "ml-dtypes",
    "numba",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "pillow",
    "protobuf",
    "pyyaml",
    "requests",
    "rich",
    "scipy",
    "snakemake",
    "tabulate",
    "threadpoolctl",
    "typer",
    "vl-convert-python",
)
"""What the package depends on (a test compares with ``pyproject.toml``)."""


def file_digest(path: Path | str) -> str:
    """Return the SHA-256 of the file's content in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digest(*modules: Path | str, package: Path = PACKAGE) -> str:
    """Return a digest of `modules` and of everything of the package that they import.

    It changes exactly when one of those files changes, so a rule that has it as a parameter reruns when code that it
    uses was edited, and not else. Imports are found where lines begin with one, those within functions and
    under ``TYPE_CHECKING`` too; nothing is imported or run. Imports by computed name are not seen.

    Parameters
    ----------
    *modules : Path or str
        Dotted names of the package's modules (``nvdla_quant.table.table``), or paths of scripts that import some.
    package : Path
        Folder of the package.

    Returns
    -------
    str
        12 hexadecimal digits of a SHA-256 over names and contents.

    Raises
    ------
    ConfigError
        One of `modules` does not exist.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_closure(modules, package).items()):
        digest.update(f"{name}\0{_read_source(path)[0]}\n".encode())
    return digest.hexdigest()[:12]


def source_files(*modules: Path | str, package: Path = PACKAGE) -> list[Path]:
    """Return the files that `source_digest` covers, in the order of their names."""
    return [path for _, path in sorted(_closure(modules, package).items())]


def _closure(modules: Iterable[Path | str], package: Path) -> dict[str, Path]:
    """Return the files reached from `modules` by imports, by dotted name (a script: by place and file name)."""
    found: dict[str, Path] = {}
    strangers: set[str] = set()
    pending: list[str] = []
    for module in modules:
        if isinstance(module, str) and not module.endswith(".py"):
            path = _module_path(module, package)
            if path is None:
                raise ConfigError(f"source digest: no module {module!r} in {package}; is the name spelled right?")
            pending.append(module)
            continue
        script = Path(module)
        if not script.is_file():
            raise ConfigError(f"source digest: no script {str(script)!r}; paths are relative to the working directory")
        found[f"{len(found)}/{script.name}"] = script
        pending.extend(_imported(script, script.stem, package))
    while pending:
        name = pending.pop()
        if name in found or name in strangers:
            continue
        path = _module_path(name, package)
        if path is None:
            strangers.add(name)
            continue
        found[name] = path
        # Importing a module runs its parents' __init__ first.
        pending.append(name.rpartition(".")[0])
        pending.extend(_imported(path, name, package))
    return found


def _module_path(name: str, package: Path) -> Path | None:
    """Return the file of the package's module `name`, or None where there is none."""
    root, *rest = name.split(".")
    if root != package.name:
        return None
    stem = package.joinpath(*rest)
    for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
        if path.is_file():
            return path
    return None


def _imported(path: Path, name: str, package: Path) -> Iterator[str]:
    """Yield the dotted names that `path`, the module `name`, may import from the package."""
    parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for level, module, attribute in _read_source(path)[1]:
        if level:
            base = ".".join(parent.split(".")[: len(parent.split(".")) - level + 1])
            module = f"{base}.{module}" if module else base
        if module.split(".")[0] == package.name:
            yield module
            if attribute:
                yield f"{module}.{attribute}"


def _read_source(path: Path) -> tuple[str, tuple[tuple[int, str, str], ...]]:
    """Return the content's digest and the imports ``(level, module, attribute)`` of a Python file, cached."""
    state = path.stat()
    return _parse_source(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _parse_source(path: Path, _modified: int, _size: int) -> tuple[str, tuple[tuple[int, str, str], ...]]:
    """Parse one file; time and size are only there so that an edited file is parsed anew."""
    content = path.read_bytes()
    imports = {one for match in _IMPORT.finditer(content) for one in _imports_of(match[0])}
    return hashlib.sha256(content).hexdigest(), tuple(sorted(imports))


_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+[\w.]+[ \t]+import[ \t]+(?:\([^)]*\)|(?:[^\n\\]|\\\n)+)|import[ \t][^\n]+)", re.MULTILINE
)
"""What begins a line as an import does; the workflow starts a second sooner than by parsing all files whole."""


def _imports_of(statement: bytes) -> Iterator[tuple[int, str, str]]:
    """Yield ``(level, module, attribute)`` of what stands where an import may; of a line of prose nothing."""
    try:
        nodes = ast.parse(statement.strip()).body
    except SyntaxError:
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


def manifest(
    *,
    inputs: Iterable[Path],
    artefacts: Iterable[Path],
    config: Mapping[str, Any],
    command: str,
    base: Path,
    processor_dependent: Iterable[Path] = (),
) -> dict[str, Any]:
    """Return what a run was made from and what it made.

    Parameters
    ----------
    inputs : Iterable[Path]
        Files that the user gave: models, data sets.
    artefacts : Iterable[Path]
        Files that the run wrote.
    config : Mapping
        The configuration after defaults.
    command : str
        What makes the artefacts again; without options that do not change them, such as the number of cores.
    base : Path
        Paths below it are written relative to it, others as given.
    processor_dependent : Iterable[Path]
        Those of `artefacts` that hold fp32 results, whose last bits may differ on another class of processor.

    Returns
    -------
    dict
        For `nvdla_quant.jobs.files.write_json`; without times, so equal runs give equal manifests.
    """
    dependent = {_shown(path, base) for path in processor_dependent}
    listed = _listing(artefacts, base)
    if missing := dependent - listed.keys():
        raise ConfigError(f"manifest: processor-dependent files that are no artefacts: {', '.join(sorted(missing))}")
    for name in dependent:
        listed[name]["processor_dependent"] = True
    return {
        "command": command,
        "software": software(),
        "config": dict(config),
        "inputs": _listing(inputs, base),
        "artefacts": listed,
    }


def command_to_repeat(configfiles: Iterable[Path | str], given: Mapping[str, Any], folder: Path) -> str:
    """Return the command that makes the same results, without what does not change them.

    Parameters
    ----------
    configfiles : Iterable[Path or str]
        Configurations that were laid over each other; the default needs no mention.
    given : Mapping
        What ``--config`` set.
    folder : Path
        Where the run takes place; paths below it are written relative to it.
    """
    paths = [folder / path for path in configfiles]
    shown = [path.relative_to(folder) if path.is_relative_to(folder) else path for path in paths]
    named = [str(path) for path in shown if path != Path("config.yaml")]
    options = [f"{key}={value}" for key, value in given.items()]
    command = ["snakemake", *(["--configfile", *named] if named else []), *(["--config", *options] if options else [])]
    return shlex.join(command)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read what `manifest` returned and a run wrote.

    Raises
    ------
    ReportError
        The file is missing, not JSON, or no manifest of this version.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in ("command", "software", "config", "inputs", "artefacts") if key not in content]
    except (OSError, ValueError, TypeError) as error:
        raise ReportError(f"{path}: not a manifest ({error})") from error
    if missing:
        raise ReportError(f"{path}: not a manifest: it lacks {', '.join(missing)}; was it written by another version?")
    return content


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the artefacts whose digests differ between two manifests, and why, as far as they tell.

    Artefacts that only one of them has are among them.
    """
    causes = [cause for cause, key in (("inputs", "inputs"), ("configuration", "config")) if first[key] != second[key]]
    ours, theirs = first["software"], second["software"]
    causes += ["code"] if ours["nvdla_quant"]["source"] != theirs["nvdla_quant"]["source"] else []
    versions = ours["distributions"], theirs["distributions"]
    changed = sorted(name for name in versions[0] if versions[0][name] != versions[1].get(name))
    causes += [f"versions of {', '.join(changed)}"] if changed else []
    processors = [(part["machine"], part["simd"]) for part in (ours, theirs)]
    found = []
    for name in sorted({*first["artefacts"], *second["artefacts"]}):
        entries = [part["artefacts"].get(name) for part in (first, second)]
        if None in entries:
            found.append((name, f"only in the {'second' if entries[0] is None else 'first'}"))
        elif entries[0]["sha256"] != entries[1]["sha256"]:
            here = list(causes)
            if processors[0] != processors[1] and entries[0].get("processor_dependent"):
                here.append("class of processor: fp32 sums may differ in the last bits")
            found.append((name, "; ".join(here) or "nothing that the manifests record: please report it"))
    return found


def _listing(paths: Iterable[Path], base: Path) -> dict[str, dict[str, Any]]:
    """Return size and digest of each file or folder by its shown name, sorted."""
    return {
        _shown(path, base): _folder_entry(path) if path.is_dir() else _file_entry(path)
        for path in sorted({Path(path) for path in paths}, key=lambda path: _shown(path, base))
    }


def _file_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _folder_entry(folder: Path) -> dict[str, Any]:
    """Return the number of files, their size, and a digest of their names and digests, in the order of the names."""
    entries = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    digest = hashlib.sha256()
    for name, path in sorted(entries.items()):
        digest.update(f"{name}\0{file_digest(path)}\n".encode())
    size = sum(path.stat().st_size for path in entries.values())
    return {"files": len(entries), "bytes": size, "sha256": digest.hexdigest()}


def _shown(path: Path, base: Path) -> str:
    """Return `path` relative to `base` if it lies below, else as given."""
    path, absolute = Path(path), Path(path).resolve()
    return (absolute.relative_to(base.resolve()) if absolute.is_relative_to(base.resolve()) else path).as_posix()


def software() -> dict[str, Any]:
    """Return versions of the package and of what it depends on, the state of its checkout, and the processor class.

    A distribution that is not installed, and the git state of an installed package, are None.
    """
    return {
        "nvdla_quant": {"source": source_digest(*_all_modules()), "git": git_state(PACKAGE)},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "distributions": {name: _version(name) for name in DISTRIBUTIONS},
        "system": platform.system(),
        "machine": platform.machine(),
        # What decides the order of fp32 sums, rather than the processor's trade name.
        "simd": sorted(np.show_config(mode="dicts")["SIMD Extensions"]["found"]),
    }


def _all_modules() -> list[str]:
    """Return the dotted names of all modules of the package."""
    relative = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in relative)


def _version(distribution: str) -> str | None:
    """Return the installed version of `distribution`, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return ``{"commit": ..., "dirty": ...}`` of the checkout that tracks `folder`.

    None where git is missing or does not track the folder: a package that was installed into an environment inside
    somebody's repository must not claim that repository's commit.
    """
    tracked, commit = _git(folder, "ls-files", "--", "."), _git(folder, "rev-parse", "HEAD")
    if not tracked or not commit:
        return None
    return {
        "commit": commit,
        "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".")),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what ``git`` prints, None where it cannot run or fails; it takes no lock on the index."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
