"""Programs that stand in for NVIDIA's tools, with the traps of the real ones; each behaves as `FAKE_MODE` says.

Beside them, ones that stand in for what makes environments: conda, apptainer.
"""

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

FAKES = Path(__file__).resolve().parent
CANARY = "FAKE_CANARY"
"""Variable with the path of a file that only a shell makes which reads `NASTY`."""
NASTY = f"a $(touch ${CANARY})`touch ${CANARY}`;touch ${CANARY};'b\"c'\n-x"
"""A name that a shell would split, expand and run; it starts no option and holds every kind of quote."""


def install(name: str, folder: Path) -> Path:
    """Put the fake program `name` into `folder`, executable with the interpreter of the tests.

    It begins without what is installed there, which is most of its time; one that needs that calls ``site.main()``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    source = (FAKES / f"{name}.py").read_text()
    path.write_text(f"#!{sys.executable} -S\n{source}")
    path.chmod(0o755)
    return path


def bare_interpreter(folder: Path, distributions: Iterable[str], *more: Path) -> Path:
    """Make an environment of the standard library, `distributions` with all that they require, and the files `more`.

    It shares the files of the tests' own environment, and sees nothing else of it, the package neither.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    left, done = list(distributions), set()
    while left:
        if (name := left.pop()) in done:
            continue
        done.add(name)
        required = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        left += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
        installed = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in installed.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(str(installed.locate_file(top)))
    for path in more:
        (site / path.name).symlink_to(path)
    return folder / "bin" / "python"


def fake_gpu() -> list[Path]:
    """Modules of a machine with TensorRT."""
    return [path for path in (FAKES / "gpu").iterdir() if path.name != "__pycache__"]
