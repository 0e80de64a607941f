"""Files that a configuration names: which they are, and where those come from that are not there yet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nvdla_quant.jobs.downloads import Source, resolve

FILE_KEYS = ("images", "labels", "path", "label_names", "list")
"""Keys of a data set's source that name one file each."""


def resolve_files(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Source]]:
    """Put a path in the place of each file that is given by a URL or inside an archive."""
    sources: dict[str, Source] = {}

    def replaced(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("sha256"), str):
            path, source = resolve(value)
            sources[path] = source
            if source.url is not None:
                sources[source.path] = replace(source, member=None)
            return path
        if isinstance(value, dict):
            return {key: replaced(item) for key, item in value.items()}
        return [replaced(item) for item in value] if isinstance(value, list) else value

    return replaced(settings), sources


def is_onnx(model: Mapping[str, Any]) -> bool:
    """Return whether the record of a model names an ONNX file, and not Caffe's."""
    return "onnx" in model


def model_files(model: Mapping[str, Any]) -> list[str]:
    """Return the files that the record of a model names; of an ONNX file, also the weights that lie beside it."""
    if not is_onnx(model):
        return [model["prototxt"], model["caffemodel"]]
    beside = f"{model['onnx']}.data"  # As PyTorch calls it; which files there are, the model alone knows.
    return [model["onnx"], *([beside] if Path(beside).is_file() else [])]


def files_in(command: Sequence[str]) -> list[str]:
    """Return the words of a command that are files here."""
    return list(dict.fromkeys(word for word in command if Path(word).is_file()))


def files_of(source: Mapping[str, Any]) -> list[str]:
    """Return the files that a data set's `source` names."""
    named = [source[key] for key in FILE_KEYS if key in source]
    return [*named, *source.get("files", [])]


def located(source: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Return a data set's `source` with `files`, in the order of `files_of`, in place of those that it names.

    What Snakemake gets out of a storage stands elsewhere than the configuration says.
    """
    given = iter(files)
    found = {key: str(next(given)) for key in FILE_KEYS if key in source}
    return {**source, **found, **({"files": [str(file) for file in given]} if "files" in source else {})}
