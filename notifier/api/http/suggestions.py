"""The name that the caller of an unknown field or parameter probably meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache, lru_cache
from typing import Annotated, Final, Literal, get_args, get_origin

import msgspec

from notifier.domain.similar_names import most_similar

_MAX_COMPARED: Final = 40
"""Characters of an unknown name that are compared."""
_MAX_CACHED: Final = 64
_WORD_END: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "recipient": "to address email phone phone_number token device_token recipients destination",
    "body": "text message msg content text_body plain plain_text",
    "subject": "title",
    "html": "html_body",
    "data": "payload",
    "content": "notification template_data",
    "channel": "type via transport medium",
    "priority": "urgency importance",
    "send_at": "schedule scheduled_at schedule_at scheduled_for deliver_at send_after eta",
    "time_zone": "timezone tz zone",
    "ttl_s": "ttl time_to_live expires expires_in expiry valid_for validity_period",
    "max_tries": "retries max_retries attempts max_attempts",
    "metadata": "meta custom_args custom_data context attributes params",
    "notifications": "messages items batch requests emails",
    "for_s": "for duration seconds duration_s until",
    "note": "reason comment message why",
    "created_from": "from since after start created_after",
    "created_to": "to until before end created_before",
    "limit": "count size page_size per_page",
    "cursor": "page offset after next next_cursor",
    "status": "state",
}
"""What other APIs, and earlier versions of this one, call a field or parameter."""


@cache
def field_paths(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """Returns the dotted paths of all fields of a request, also of the structs inside it."""
    paths: list[str] = []
    for field in msgspec.structs.fields(struct):
        paths.append(field.encode_name)
        inner_struct = struct_in(field.type)
        if inner_struct is not None:
            paths += [f"{field.encode_name}.{inner}" for inner in field_paths(inner_struct)]
    return tuple(paths)


@cache
def enum_values(struct: type[msgspec.Struct]) -> Mapping[str, Sequence[str]]:
    """Returns the values of each field of a request that has an enumeration, by its path."""
    values: dict[str, Sequence[str]] = {}
    for field in msgspec.structs.fields(struct):
        if own := _enum_values_in(field.type):
            values[field.encode_name] = own
        inner_struct = struct_in(field.type)
        if inner_struct is not None:
            inner = enum_values(inner_struct)
            values |= {f"{field.encode_name}.{path}": each for path, each in inner.items()}
    return values


def _enum_values_in(type_: object) -> Sequence[str]:
    if isinstance(type_, type) and issubclass(type_, Enum):
        return [str(member.value) for member in type_]
    if get_origin(type_) is Literal:
        return [str(value) for value in get_args(type_)]
    return [value for argument in get_args(type_) for value in _enum_values_in(argument)]


def struct_in(type_: object) -> type[msgspec.Struct] | None:
    """Returns the struct that a field's type is, also one that may be null; None for others."""
    while get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    for option in get_args(type_) or (type_,):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option
    return None


def suggested(name: str, paths: Sequence[str], *, is_searched: bool = True) -> str | None:
    """Returns the path that an unknown name stands for, None if no path is similar.

    Compares the last step of the paths, whatever their case: `maxTries` means `max_tries`. Similar
    names cost far more than known ones: they are only searched for if `is_searched`.
    """
    plain = _WORD_END.sub("_", name[:_MAX_COMPARED]).replace("-", "_").lower()
    by_name = _paths_by_name(tuple(paths))
    other_names = _paths_by_other_name(tuple(paths))
    if meant := by_name.get(plain) or other_names.get(plain):
        return meant
    similar = most_similar(plain, by_name) if is_searched else None
    return by_name[similar] if similar else None


@lru_cache(_MAX_CACHED)
def _paths_by_name(paths: tuple[str, ...]) -> Mapping[str, str]:
    by_name: dict[str, str] = {}
    for path in paths:  # a name that an inner struct has, too, means the outer one
        by_name.setdefault(path.rpartition(".")[2], path)
    return by_name


@lru_cache(_MAX_CACHED)
def _paths_by_other_name(paths: tuple[str, ...]) -> Mapping[str, str]:
    others: dict[str, str] = {}
    for name, path in _paths_by_name(paths).items():
        for other in _OTHER_NAMES.get(name, "").split():
            others.setdefault(other, path)
    return others
