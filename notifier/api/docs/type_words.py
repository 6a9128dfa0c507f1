"""A JSON schema's type in words, as the reference page shows it: `string, date-time`."""

from __future__ import annotations

import json
from html import escape
from typing import Final

from notifier.api.docs.openapi import Json

_BOUNDS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matching {}",
}


def type_words(schema: Json) -> str:
    """Return HTML: the words are escaped, and the names of other schemas are links."""
    parts = [_kind(schema)]
    if "format" in schema:
        parts.append(escape(schema["format"]))
    parts += [escape(words.format(schema[key])) for key, words in _BOUNDS.items() if key in schema]
    if schema.get("default") is not None:
        parts.append(f"default {escape(json.dumps(schema['default']))}")
    return ", ".join(part for part in parts if part)


def schema_link(schema: Json) -> str:
    """Link the schema that is referred to, if one is."""
    name = escape(str(schema.get("$ref", "")).rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>' if name else ""


def _kind(schema: Json) -> str:
    match schema:
        case {"$ref": _}:
            return schema_link(schema)
        case {"anyOf": list(kinds)} | {"oneOf": list(kinds)}:
            return " or ".join(map(type_words, kinds))
        case {"enum": list(values)}:
            return f"one of {escape(', '.join(map(str, values)))}"
        case {"type": "array", "items": dict(items)}:
            return f"array of {type_words(items)}"
        case {"type": list(kinds)}:
            return escape(" or ".join(kinds))
        case _:
            return escape(str(schema.get("type", "anything")))
