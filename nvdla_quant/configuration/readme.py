"""``config/README.md``, generated from the schema: ``python -m nvdla_quant.configuration.readme`` prints it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nvdla_quant.configuration.schema import load_schema

COMMAND = "python -m nvdla_quant.configuration.readme > config/README.md"
"""What writes the file."""


def _kind(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Return what a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return _kind(root["$defs"][name], root) if name != "file" else "[file](#a-file)"
    if "enum" in schema:
        return " or ".join(f"`{item}`" for item in schema["enum"])
    if "anyOf" in schema:
        return ", or ".join(_kind(choice, root) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], root)}"
    kind = schema.get("type", "")
    if isinstance(kind, list) and kind[0] in ("object", "array"):
        return f"{_kind({**schema, 'type': kind[0]}, root)}, or [sheet](#a-sheet)"
    if isinstance(kind, list):
        return f"{kind[0]}, or list of such"
    return str(kind)


def _rows(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    for key, value in schema.get("properties", {}).items():
        reference = root["$defs"][value["$ref"].rsplit("/", 1)[1]] if "$ref" in value else {}
        full = {**reference, **value}
        kind = _kind(full, root)
        default = "required" if key in required else f"`{json.dumps(full['default'])}`" if "default" in full else "none"
        yield f"| `{key}` | {kind} | {default} | {' '.join(full.get('description', '').split())} |"


_BACKEND_TITLES = {
    "tensorrt": "`backends.tensorrt`",
    "nvdla_compiler": "`backends.nvdla_compiler`",
    "nvdla_runtime": "`backends.nvdla_runtime`",
    "ssh": "`backends.nvdla_runtime.ssh`",
    "virtual_platform": "`backends.nvdla_runtime.virtual_platform`",
}


def render_markdown() -> str:
    """Return ``config/README.md``: every key of the schema with type, default and meaning."""
    schema = load_schema()
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    lines = [
        "# Configuration",
        "",
        f"<!-- Generated from schemas/config.schema.yaml by `{COMMAND}`. -->",
        "",
        " ".join(schema["description"].split()),
        "",
        "The default is `config.yaml` at the top of the repository. `--configfile my.yaml` with `models` in it stands",
        "for itself; one without is laid over the default, key by key, and replaces lists whole. Several files",
        "(`--configfile a.yaml b.yaml`) are laid over each other in their order. docs/sweeps.md shows how it is used.",
        "",
        *head,
        *_rows(schema, schema),
    ]
    for title, section in (
        ("A model (`models.<name>`)", "model"),
        ("Preprocessing (`models.<name>.preprocessing`)", "preprocessing"),
        ("A data set (`datasets.<name>`)", "dataset"),
        ("Its files (`datasets.<name>.source`)", "source"),
        ("A file", "remote"),
        ("A case (`cases[]`)", "case"),
        ("Overrides (`cases[].overrides`)", "overrides"),
        ("A calibrator (`calibrators.<name>`)", "calibrator"),
        ("Own targets", "own_target"),
        ("A variant (`variants[]`)", "variant"),
        ("A rule (`include[]`, `exclude[]`)", "rule"),
    ):
        record = schema["$defs"][section]
        words = [" ".join(record["description"].split()), ""] if "description" in record else []
        lines += ["", f"## {title}", "", *words, *head, *_rows(record, schema)]
    lines += ["", "## A sheet", "", " ".join(schema["$defs"]["sheet"]["description"].split())]
    for name, title in _BACKEND_TITLES.items():
        lines += ["", f"## {title}", "", *head, *_rows(schema["$defs"][name], schema)]
    for key in ("emulator", "verify", "memory", "raw_dumps"):
        lines += ["", f"## `{key}`", "", *head, *_rows(schema["properties"][key], schema)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render_markdown(), end="")
