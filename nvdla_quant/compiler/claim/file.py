"""The claim in ``compile.json``: its schema, writing and reading."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nvdla_quant.compiler.claim.records import STAGES, Claim, Held, Piece, Place, Run, Stage
from nvdla_quant.errors import ClaimError
from nvdla_quant.hardware.targets import Precision, QuantizationMode
from nvdla_quant.network.graph import Pair

_PAIR = {"type": "array", "prefixItems": [{"type": "integer"}] * 2, "minItems": 2, "maxItems": 2}

_TAPS = {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]}

_PLACE = {
    "type": "object",
    "properties": {"tensor": {"type": "string"}, "channels": _PAIR, "rows": _PAIR, "columns": _PAIR, "size": _PAIR},
    "required": ["tensor", "channels", "rows", "columns"],
    "additionalProperties": False,
}

_STRING, _NUMBER, _INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}

_STAGE_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "weighting": {
        "layer": _STRING,
        "kernels": _PAIR,
        "channels": _PAIR,
        "rows": _TAPS,
        "columns": _TAPS,
        "factor": _NUMBER,
        "bias": {"type": "boolean"},
        "stride": _PAIR,
        "pad": _PAIR,
        "dilation": _PAIR,
    },
    "gathering": {
        "outputs": _INTEGER,
        "places": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [_INTEGER, _INTEGER, _INTEGER, _NUMBER],
                "minItems": 4,
                "maxItems": 4,
            },
        },
    },
    "whole": {"layer": _STRING},
    "affine": {"layer": _STRING},
    "gain": {"factor": _NUMBER},
    "joining": {"how": {"enum": ["sum", "max", "min", "product"]}, "gain": _NUMBER, "reads": _PLACE},
    "slopes": {"layer": _STRING, "kernels": _PAIR},
    "lookup": {"layer": _STRING, "unit": {"type": "number", "exclusiveMinimum": 0}},
    "rectifying": {},
    "bounding": {"layer": _STRING, "sides": {"type": "array", "items": {"enum": ["low", "high"]}, "minItems": 1}},
}

_STAGE = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, **fields},
            "required": ["kind", *fields],
            "additionalProperties": False,
        }
        for kind, fields in _STAGE_FIELDS.items()
    ]
}

MESSAGE = 200
"""Characters of what is wrong that a message quotes."""
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "target": _STRING,
        "precision": {"enum": [str(Precision.INT8), str(Precision.FP16)]},
        "mode": {"anyOf": [{"type": "null"}, {"enum": [str(mode) for mode in QuantizationMode]}]},
        "tensors": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "shape": {
                        "type": "array",
                        "items": {"type": "integer", "minimum": 1},
                        "minItems": 3,
                        "maxItems": 3,
                    },
                    "scale": {"type": "number", "exclusiveMinimum": 0},
                },
                "required": ["shape", "scale"],
                "additionalProperties": False,
            },
        },
        "inside": {"type": "object", "additionalProperties": _PLACE},
        "pieces": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "layers": {"type": "array", "items": _STRING, "minItems": 1},
                    "reads": _PLACE,
                    "writes": _PLACE,
                    "stages": {"type": "array", "items": _STAGE},
                    "runs": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "properties": {"operation": _INTEGER, "rows": _PAIR, "columns": _PAIR},
                            "required": ["operation", "rows", "columns"],
                            "additionalProperties": False,
                        },
                    },
                },
                "required": ["layers", "reads", "writes", "stages", "runs"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["target", "precision", "mode", "tensors", "inside", "pieces"],
    "additionalProperties": False,
}
"""JSON Schema of ``claim`` in ``compile.json``."""


def claim_as_json(claim: Claim) -> dict[str, Any]:
    """Return a claim as ``compile.json`` holds it."""
    content = asdict(claim, dict_factory=_fields)
    for piece, found in zip(claim.pieces, content["pieces"], strict=True):
        stages = zip(piece.stages, found["stages"], strict=True)
        found["stages"] = [{"kind": stage.kind, **fields} for stage, fields in stages]
    return content


def _fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a record; few places have a size of their own, and the others say nothing of it."""
    return {name: value for name, value in pairs if name != "size" or value is not None}


def claim_from_json(content: Any, where: str) -> Claim:
    """Return the claim that `claim_as_json` gave.

    Raises
    ------
    ClaimError
        It has another structure; the message says where and what was expected.
    """
    import jsonschema  # Here: a compiler, which writes claims, does without.

    try:
        jsonschema.validate(content, SCHEMA)
    except jsonschema.ValidationError as error:
        path = "/".join(map(str, error.absolute_path)) or "the top"
        found = error.message if len(error.message) < MESSAGE else f"{error.message[:MESSAGE]} ..."
        raise ClaimError(f"{where}: claim: at {path}: {found}; compile again for a claim") from error
    return Claim(
        content["target"],
        content["precision"],
        content["mode"],
        {name: Held(tuple(held["shape"]), held["scale"]) for name, held in content["tensors"].items()},
        {name: _read_place(place) for name, place in content["inside"].items()},
        tuple(_read_piece(piece) for piece in content["pieces"]),
    )


def read_claim(path: Path) -> Claim:
    """Return the claim in a ``compile.json``.

    Raises
    ------
    ClaimError
        The file cannot be read, or holds no claim: another compiler's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClaimError(f"{path}: not a compile.json that can be read ({error}); compile with --report") from error
    if not isinstance(content, dict) or "claim" not in content:
        made = content.get("compiler") if isinstance(content, dict) else None
        raise ClaimError(f"{path}: no claim in it (compiler: {made!r}); only the built-in compiler writes one")
    return claim_from_json(content["claim"], str(path))


def _read_place(content: Any) -> Place:
    size = _pair(content["size"]) if "size" in content else None
    channels, rows, columns = (_pair(content[name]) for name in ("channels", "rows", "columns"))
    return Place(content["tensor"], channels, rows, columns, size)


def _pair(content: Any) -> Pair:
    first, second = content
    return int(first), int(second)


def _read_piece(content: Any) -> Piece:
    runs = tuple(Run(run["operation"], _pair(run["rows"]), _pair(run["columns"])) for run in content["runs"])
    places = _read_place(content["reads"]), _read_place(content["writes"])
    return Piece(tuple(content["layers"]), *places, tuple(map(_read_stage, content["stages"])), runs)


def _read_stage(content: Any) -> Stage:
    fields = {name: _frozen(value) for name, value in content.items() if name != "kind"}
    if "reads" in fields:
        fields["reads"] = _read_place(content["reads"])
    return STAGES[content["kind"]](**fields)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
