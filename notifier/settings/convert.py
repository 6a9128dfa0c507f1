"""Raw tables into frozen structs, with every problem found and not only the first.

A `Text` is a string from the environment: where a number or a boolean is expected it may stand
for one. Values of a TOML file must have the type already.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, structs

from notifier.settings.expected import expected
from notifier.settings.problems import Problems

T = TypeVar("T", bound=msgspec.Struct)


class Text(str):
    """A value that could only be given as text."""

    __slots__ = ()


def convert_table(raw: Mapping[str, object], types: Mapping[str, type[T]], *, key: str) -> T:
    """A tagged table, such as a provider's, read into the struct that its `type` names.

    `key` is the dotted key of the table (`providers.smtp`). Raises ConfigError with all problems.
    """
    problems = Problems()
    table = dict(raw)
    tag = table.pop("type", None)
    if tag is None:
        problems.missing(f"{key}.type", " or ".join(f'"{name}"' for name in types))
    elif str(tag) not in types:
        problems.wrong(f"{key}.type", tag, " or ".join(f'"{name}"' for name in types))
    made = read_struct(table, types[str(tag)], key, problems) if str(tag) in types else None
    problems.raise_if_any()
    return cast("T", made)


def read_struct(raw: Mapping[str, object], into: type[T], key: str, problems: Problems) -> T | None:
    """The struct, or None when a problem was found."""
    before = len(problems.found)
    fields = {one.encode_name: one for one in structs.fields(into)}
    values: dict[str, object] = {}
    for name, value in raw.items():
        if name in fields:
            values[fields[name].name] = _read(value, fields[name].type, _join(key, name), problems)
        else:
            problems.unknown(_join(key, name), fields)
    for name, one in fields.items():
        if name not in raw and one.default is NODEFAULT and one.default_factory is NODEFAULT:
            problems.missing(_join(key, name), expected(one.type))
    return into(**values) if len(problems.found) == before else None


def _read(value: object, type_: Any, key: str, problems: Problems) -> object:  # noqa: ANN401 a type form
    plain = _unwrap(type_)
    if isinstance(value, Mapping) and isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return read_struct(value, plain, key, problems)
    if isinstance(value, Mapping) and get_origin(plain) in (Mapping, dict):
        return _read_mapping(value, plain, key, problems)
    try:
        return msgspec.convert(
            str(value) if isinstance(value, str) else value, type_, strict=type(value) is not Text
        )
    except msgspec.ValidationError:
        problems.wrong(key, value, expected(type_))
        return None


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
    """The type without `Annotated` and without `| None`."""
    if get_origin(type_) is Annotated:
        return _unwrap(get_args(type_)[0])
    if get_origin(type_) in (Union, UnionType):
        some = [one for one in get_args(type_) if one is not type(None)]
        return _unwrap(some[0]) if len(some) == 1 else type_
    return type_


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
