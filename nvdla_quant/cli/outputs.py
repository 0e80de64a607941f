"""Where the outputs of a loadable go: an only one into the file that is given, several into files of a folder."""

from collections.abc import Sequence
from pathlib import Path

import typer

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
