"""Describes the type of a JSON schema in one line, such as `string, date-time`."""

from __future__ import annotations

import json
from html import escape
from typing import Final

from notifier.api.docs.openapi import Json

_LIMITS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matching {}",
}


def type_text(schema: Json) -> str:
    """Returns HTML: the text is escaped, and names of other schemas are links."""
    parts = [_type_name(schema)]
    if "format" in schema:
        parts.append(escape(schema["format"]))
    parts += [escape(text.format(schema[key])) for key, text in _LIMITS.items() if key in schema]
    if schema.get("default") is not None:
        parts.append(f"default {escape(json.dumps(schema['default']))}")
    return ", ".join(part for part in parts if part)


def _schema_link(reference: str) -> str:
    name = escape(reference.rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>' if name else ""


def _type_name(schema: Json) -> str:
    match schema:
        case {"$ref": str(reference)}:
            return _schema_link(reference)
        case {"anyOf": list(variants)} | {"oneOf": list(variants)}:
            return " or ".join(map(type_text, variants))
        case {"enum": list(values)}:
            return f"one of {escape(', '.join(map(str, values)))}"
        case {"type": "array", "items": dict(items)}:
            return f"array of {type_text(items)}"
        case {"type": list(names)}:
            return escape(" or ".join(names))
        case _:
            return escape(str(schema.get("type", "anything")))
