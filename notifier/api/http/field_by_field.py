"""Decodes each field of a body by itself, so that all wrong ones are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from notifier.api.http.decode_errors import invalid_field, missing_field, unknown_field
from notifier.api.http.problem_types import MAX_ERRORS
from notifier.api.http.suggestions import enum_values, field_paths, struct_in
from notifier.domain.errors import InvalidNotification

MAX_SEARCHES: Final = 3
"""For how many unknown names of a body similar ones are searched: a search is most of the cost."""
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class DecodedFields(NamedTuple):
    """The values of the right fields by name, and what is wrong with the others."""

    values: Mapping[str, Any]
    faults: Sequence[InvalidNotification]


class _Field(NamedTuple):
    decoder: msgspec.json.Decoder[Any]
    struct: type[msgspec.Struct] | None
    is_required: bool


def decode_fields(struct: type[msgspec.Struct], body: bytes | msgspec.Raw) -> DecodedFields:
    """Decodes the fields of a body. Finds at most `MAX_ERRORS` faults, also inside a field.

    Finds nothing in a body that is not an object, or that the parser rejects.
    """
    search = _Search(field_paths(struct), enum_values(struct))
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return DecodedFields(search.decode(struct, body, ""), search.faults)
    return DecodedFields({}, search.faults)


class _Search:
    """The faults found so far in one body, whose fields have these paths and enumerations."""

    def __init__(self, paths: Sequence[str], values: Mapping[str, Sequence[str]]) -> None:
        self._paths = paths
        self._values = values
        self._searches = 0
        self.faults: list[InvalidNotification] = []

    def decode(
        self, struct: type[msgspec.Struct], body: bytes | msgspec.Raw, prefix: str
    ) -> Mapping[str, Any]:
        """Returns the values of the right fields of the object at `prefix`."""
        raws = _OBJECT.decode(body)
        fields, values = _fields_of(struct), dict[str, Any]()
        for name, raw in raws.items():
            if len(self.faults) >= MAX_ERRORS:
                return values
            if name not in fields:
                self.faults.append(self._unknown(name, prefix))
                continue
            try:
                values[name] = fields[name].decoder.decode(raw)
            except msgspec.ValidationError as error:
                self._search(fields[name], raw, _joined(prefix, name), error)
        absent = [name for name in fields if fields[name].is_required and name not in raws]
        self.faults += [missing_field(_joined(prefix, name)) for name in absent]
        return values

    def _unknown(self, name: str, prefix: str) -> InvalidNotification:
        self._searches += 1
        is_searched = self._searches <= MAX_SEARCHES
        return unknown_field(name, prefix=prefix, paths=self._paths, is_searched=is_searched)

    def _search(
        self, field: _Field, raw: msgspec.Raw, path: str, error: msgspec.ValidationError
    ) -> None:
        before = len(self.faults)
        if field.struct is not None and bytes(raw).startswith(b"{"):
            self.decode(field.struct, raw, path)
        if len(self.faults) == before:
            self.faults.append(
                invalid_field(str(error), prefix=path, paths=self._paths, values=self._values)
            )


@cache
def _fields_of(struct: type[msgspec.Struct]) -> dict[str, _Field]:
    return {
        field.encode_name: _Field(
            msgspec.json.Decoder(field.type),
            struct_in(field.type),
            field.required,
        )
        for field in msgspec.structs.fields(struct)
    }


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
