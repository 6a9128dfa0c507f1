"""Converts raw tables into frozen structs, and reports all problems, not only the first.

A `Text` comes from a variable or a secret file; numbers and booleans are parsed from it. The values
of a TOML file must have the right type.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import structs

from notifier.settings.expected import expected
from notifier.settings.problems import Problems

T = TypeVar("T", bound=msgspec.Struct)


class Text(str):
    """A value from a source that knows only text."""

    __slots__ = ()


def convert_table(raw: Mapping[str, object], types: Mapping[str, type[T]], *, key: str) -> T:
    """Read a table, such as a provider's, into the struct that its `type` selects.

    `key` is the dotted key of the table (`providers.smtp`). Raises ConfigError with all problems.
    """
    problems = Problems()
    table = dict(raw)
    tag = table.pop("type", None)
    if tag is None:
        problems.missing(f"{key}.type", " or ".join(f'"{name}"' for name in types))
    elif str(tag) not in types:
        problems.wrong(f"{key}.type", tag, " or ".join(f'"{name}"' for name in types))
    result = read_struct(table, types[str(tag)], key, problems) if str(tag) in types else None
    problems.raise_if_any()
    return cast("T", result)


def read_struct(raw: Mapping[str, object], into: type[T], key: str, problems: Problems) -> T | None:
    """Read a table into a struct. Returns None if it reported a problem."""
    before = len(problems.found)
    fields = {field.encode_name: field for field in structs.fields(into)}
    values: dict[str, object] = {}
    for name, value in raw.items():
        if name in fields:
            values[fields[name].name] = _read(value, fields[name].type, _join(key, name), problems)
        else:
            problems.unknown(_join(key, name), fields)
    for name, field in fields.items():
        if name not in raw and field.required:
            problems.missing(_join(key, name), expected(field.type))
    return into(**values) if len(problems.found) == before else None


def _read(value: object, type_: Any, key: str, problems: Problems) -> object:  # noqa: ANN401 a type form
    plain = _unwrap(type_)
    if isinstance(value, Mapping) and isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return read_struct(value, plain, key, problems)
    if isinstance(value, Mapping) and get_origin(plain) in (Mapping, dict):
        return _read_mapping(value, plain, key, problems)
    is_text = type(value) is Text
    if is_text and get_origin(plain) in (tuple, list):
        value = _items(str(value))
    try:
        return msgspec.convert(
            str(value) if isinstance(value, str) else value, type_, strict=not is_text
        )
    except msgspec.ValidationError:
        problems.wrong(key, value, expected(type_))
        return None


def _items(text: str) -> object:
    """Return the items of a list in a variable: `a, b` or `["a", "b"]`."""
    if text.lstrip().startswith("["):
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(text)
    return [item for part in text.split(",") if (item := part.strip())]


def _read_mapping(
    value: Mapping[str, object],
    type_: Any,  # noqa: ANN401 a type form
    key: str,
    problems: Problems,
) -> dict[str, object]:
    name_type, value_type = get_args(type_)
    for name in value:
        if not _fits(name, name_type):
            problems.add(_join(key, name), f"expected {expected(name_type)}")
    if value_type is object:
        return dict(value)
    return {
        name: _read(inner, value_type, _join(key, name), problems) for name, inner in value.items()
    }


def _fits(value: object, type_: Any) -> bool:  # noqa: ANN401 a type form
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True


def _unwrap(type_: Any) -> Any:  # noqa: ANN401 a type form
    """Return the type without `Annotated` and `| None`."""
    if get_origin(type_) is Annotated:
        return _unwrap(get_args(type_)[0])
    if get_origin(type_) in (Union, UnionType):
        members = [member for member in get_args(type_) if member is not type(None)]
        return _unwrap(members[0]) if len(members) == 1 else type_
    return type_


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
