"""Programs that stand in for NVIDIA's tools, with the traps of the real ones; each behaves as `FAKE_MODE` says."""

import shutil
import sys
from pathlib import Path

FAKES = Path(__file__).resolve().parent
NASTY = "a b'c\"d$(touch canary)`touch canary`;touch canary\n-x"
"""A name that a shell would split, expand or run; it starts no option and holds every kind of quote."""


def install(name: str, folder: Path) -> Path:
    """Put the fake program `name` into `folder`, executable with the interpreter of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    source = (FAKES / f"{name}.py").read_text()
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


def copy_to(folder: Path, *names: str) -> None:
    """Install several fakes, to put `folder` on PATH."""
    for name in names:
        install(name, folder)
    assert shutil.which(names[0], path=str(folder))
