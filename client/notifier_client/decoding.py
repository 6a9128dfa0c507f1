"""Reads JSON documents into the dataclasses that describe them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from notifier_client.instants import parse_instant

T = TypeVar("T")


class Undecodable(ValueError):
    """A document that is not what was expected; the text names the field."""


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Return a JSON object. Raises Undecodable for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Undecodable("it is not JSON") from error
    if not isinstance(document, dict):
        raise Undecodable("it is not a JSON object")
    return document


def decode(kind: type[T], document: object, at: str = "$") -> T:
    """Return a dataclass with the values of a document.

    Unknown members are ignored, and missing ones take their default. Raises Undecodable.
    """
    if not isinstance(document, dict):
        raise Undecodable(f"{at}: expected an object, got {type(document).__name__}")
    values: dict[str, Any] = {}
    described: type = kind
    for name, (hint, is_required) in _fields(described).items():
        if name in document:
            values[name] = _value(hint, document[name], f"{at}.{name}")
        elif is_required:
            raise Undecodable(f"{at}.{name} is missing")
    return kind(**values)


@lru_cache(maxsize=64)
def _fields(kind: type) -> dict[str, tuple[object, bool]]:
    hints = get_type_hints(kind)
    return {
        field.name: (hints[field.name], field.default is MISSING)
        for field in fields(kind)
        if field.init
    }


def _value(hint: object, value: object, at: str) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:  # every union is `X | None`
        return None if value is None else _value(arguments[0], value, at)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, f"{at}[{n}]") for n, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value, at)
    if hint is datetime and isinstance(value, str):
        return _instant(value, at)
    if hint is float and type(value) in {int, float}:
        return float(value)  # type: ignore[arg-type] # one of the two
    if type(value) is hint:
        return value
    raise Undecodable(f"{at}: expected {hint}, got {type(value).__name__}")


def _instant(value: str, at: str) -> datetime:
    try:
        return parse_instant(value)
    except (ValueError, OverflowError) as error:
        raise Undecodable(f"{at}: {error}") from error
