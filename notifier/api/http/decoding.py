"""Decodes a body into a struct, or finds the fields that are wrong."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

from notifier.api.http.decode_errors import invalid_field
from notifier.api.http.field_by_field import DecodedFields, decode_fields
from notifier.api.http.json_checks import (
    NESTING_EXPECTED,
    find_unstorable,
    parse_leniently,
    path_of_deep_nesting,
)
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.suggestions import enum_values, field_paths
from notifier.api.requests import WHOLE_BODY
from notifier.domain.errors import InvalidNotification

JSON_EXPECTED: Final = "a JSON object (RFC 8259) in UTF-8"
T = TypeVar("T", bound=msgspec.Struct)


class BodyDecoder(Generic[T]):
    """Decodes bodies of one type, or finds every field that is wrong."""

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._paths = field_paths(struct)
        self._values = enum_values(struct)
        self._decoder = msgspec.json.Decoder(struct)

    def decode(self, body: bytes | msgspec.Raw) -> T:
        """Decodes a body.

        Raises InvalidNotification for wrong fields, and RequestRefused for a body that is not JSON.
        """
        decoded = self.decode_or_find_faults(body)
        if isinstance(decoded, DecodedFields):
            raise InvalidNotification.of(decoded.faults)
        return decoded

    def decode_or_find_faults(self, body: bytes | msgspec.Raw) -> T | DecodedFields:
        """Decodes a body; one with wrong fields field by field, with at least one fault.

        Raises InvalidNotification for a body that is no object, or is nested too deeply, and
        RequestRefused for a body that is not JSON.
        """
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            decoded = decode_fields(self._struct, body)
            if decoded.faults:
                return decoded
            fault = invalid_field(str(error), paths=self._paths, values=self._values)
            raise fault from error
        except RecursionError as error:
            field = path_of_deep_nesting(bytes(body))
            raise InvalidNotification(field, NESTING_EXPECTED) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unstorable_in(bytes(body)) or _malformed() from error


def _unstorable_in(body: bytes) -> InvalidNotification | None:
    try:
        document = parse_leniently(body)
    except (ValueError, RecursionError):
        return None
    return find_unstorable(document, "")


def _malformed() -> RequestRefused:
    detail = "The body is empty, cut off, or not JSON."
    return RequestRefused(
        ProblemType.MALFORMED_JSON.problem(detail, field=WHOLE_BODY, expected=JSON_EXPECTED)
    )
