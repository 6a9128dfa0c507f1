"""Describes types for error messages: `an integer from 1 to 65535`, `"resend" or "hold"`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import inspect

_PLAIN: Final = {
    inspect.BoolType: "true or false",
    inspect.StrType: "a text",
    inspect.StructType: "a table",
}


def expected(type_: object) -> str:
    """Describe the values of a type."""
    return _describe(inspect.type_info(type_))


def _describe(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata(extra_json_schema={"description": str(description)}):
            return description
        case inspect.Metadata(type=inner):
            return _describe(inner)
        case inspect.LiteralType(values=values):
            return _either(f'"{value}"' for value in values)
        case inspect.UnionType(types=types):
            return _either(_describe(t) for t in types if not isinstance(t, inspect.NoneType))
        case inspect.IntType() | inspect.FloatType():
            return _number(info)
        case inspect.DictType(value_type=inner):
            return f"a table, each value {_describe(inner)}"
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            return f"a list, each item {_describe(inner)}"
        case _:
            return _PLAIN.get(type(info), "another type")


def _number(info: inspect.IntType | inspect.FloatType) -> str:
    kind = "an integer" if isinstance(info, inspect.IntType) else "a number"
    if info.ge is not None and info.le is not None:
        return f"{kind} from {_plain(info.ge)} to {_plain(info.le)}"
    bounds = (
        ("at least", info.ge),
        ("above", info.gt),
        ("at most", info.le),
        ("below", info.lt),
    )
    parts = [f"{word} {_plain(bound)}" for word, bound in bounds if bound is not None]
    return " ".join([kind, " and ".join(parts)]) if parts else kind


def _either(choices: Iterable[str]) -> str:
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
