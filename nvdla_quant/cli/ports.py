"""Files of a loadable's inputs and outputs: an only one is the file that is given, several are files of a folder."""

from collections.abc import Sequence
from pathlib import Path

import typer

from nvdla_quant.cli.options import existing
from nvdla_quant.jobs.files import file_names


def places_of(path: Path, names: Sequence[str], option: str, suffix: str) -> list[Path]:
    """Return the file of each output: `path` itself, or where there are several, ``NAME<suffix>`` in the folder `path`.

    Parameters
    ----------
    path : Path
        What the user gave.
    names : Sequence[str]
        What the loadable calls its outputs.
    option : str
        The option that `path` was given by, for messages.
    suffix : str
        Of a file of this kind; a path that has it is meant as a file.

    Raises
    ------
    typer.BadParameter
        `path` is a file where a folder is needed, or a folder where a file is.
    """
    if len(names) == 1:
        if path.is_dir():
            raise typer.BadParameter(f"{option} {path} is a folder, and the loadable has one output: give a file")
        return [path]
    if path.suffix == suffix or path.is_file():
        folder = path.with_suffix("") if path.suffix else path.with_name(f"{path.name}-outputs")
        raise typer.BadParameter(
            f"{option} {path}: the loadable has {len(names)} outputs ({', '.join(names)}), which go into a file each; "
            f"give a folder, such as {folder}"
        )
    return [path / f"{name}{suffix}" for name in file_names(names)]


def file_or_folder(path: Path | None) -> Path | None:
    """Refuse what is neither a file nor a folder; the option's name goes before the message."""
    return path if path is not None and path.is_dir() else existing(path)


def sources_of(path: Path, names: Sequence[str]) -> list[Path]:
    """Return the file of each input: `path` itself, or where there are several, ``NAME.npy`` in the folder `path`.

    Parameters
    ----------
    path : Path
        What the user gave by ``--input``.
    names : Sequence[str]
        What the loadable calls its inputs.

    Raises
    ------
    typer.BadParameter
        `path` is a file where a folder is needed, or a folder where a file is, or one that lacks an input.
    """
    if len(names) == 1:
        if path.is_dir():
            raise typer.BadParameter(f"--input {path} is a folder, and the loadable has one input: give a file")
        return [path]
    wanted = [f"{name}.npy" for name in file_names(names)]
    if not path.is_dir():
        raise typer.BadParameter(
            f"--input {path}: the loadable has {len(names)} inputs ({', '.join(names)}); give a folder with "
            f"{', '.join(wanted)}"
        )
    if missing := [name for name in wanted if not (path / name).is_file()]:
        raise typer.BadParameter(f"--input {path}: has no {', '.join(missing)}; expected {', '.join(wanted)}")
    return [path / name for name in wanted]
