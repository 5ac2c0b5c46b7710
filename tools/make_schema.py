"""Write the JSON schemas of the reports: docs/report.schema.json and docs/sweep.schema.json.

    python tools/make_schema.py [--check]

They are made of the types and docstrings of the dataclasses, so they cannot say anything else.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from onnx_sipp.report.packing import PackReport
from onnx_sipp.report.result import LayerReport, Report
from onnx_sipp.report.sweep import Sweep

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCHEMAS = {"report.schema.json": Report, "sweep.schema.json": Sweep}
# What `to_dict` adds to the fields.
ADDED = {Report: ("sparsity",), LayerReport: ("sparsity",), PackReport: ("ratio", "worst_error")}
PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    float: {"type": ["number", "null"]},  # infinities and NaN are null
    Any: {},
}


def main() -> None:
    """Write the schemas, or say which are out of date."""
    stale = []
    for name, kind in SCHEMAS.items():
        text = json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"
        path = DOCS / name
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run tools/make_schema.py")
    print("docs:", ", ".join(SCHEMAS))


def schema(kind: type) -> dict[str, Any]:
    """The schema of a dataclass and all that it holds."""
    found: dict[str, Any] = {}
    top = _reference(kind, found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{kind.__name__} of onnx-sipp, schema version 1",
        **top,
        "$defs": found,
    }


def _reference(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in found:
        found[name] = {}
        hints, told = get_type_hints(kind), _attributes(kind)
        properties = {
            field.name: {**_of(hints[field.name], found), **_described(told.get(field.name))}
            for field in dataclasses.fields(kind)
        }
        for added in ADDED.get(kind, ()):
            said = inspect.getdoc(getattr(kind, added))
            properties[added] = {"type": "number", **_described(said)}
        found[name] = {
            "type": "object",
            **_described((inspect.getdoc(kind) or "").split("\n\n")[0]),
            "properties": properties,
            "required": list(properties),
        }
    return {"$ref": f"#/$defs/{name}"}


def _of(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _reference(hint, found)
    if hint in PLAIN:
        return dict(PLAIN[hint])
    if origin is list:
        return {"type": "array", "items": _of(arguments[0], found)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1], found)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(one, found) for one in arguments]}
    raise TypeError(f"no schema for {hint}")


def _attributes(kind: type) -> dict[str, str]:
    """What a docstring says of each attribute."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _described(text: str | None) -> dict[str, str]:
    return {"description": " ".join(text.split())} if text else {}


if __name__ == "__main__":
    main()
