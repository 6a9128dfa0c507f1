"""Decodes a body into a struct, or finds the field that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from notifier.api.http.decode_errors import invalid_field
from notifier.api.http.json_checks import (
    NESTING_EXPECTED,
    find_unstorable,
    parse_leniently,
    path_of_deep_nesting,
)
from notifier.api.http.problems import ProblemType, RequestRefused
from notifier.api.requests import WHOLE_BODY
from notifier.domain.errors import InvalidNotification

JSON_EXPECTED: Final = "a JSON object (RFC 8259) in UTF-8"
_T = TypeVar("_T")


def decode_body(
    decoder: msgspec.json.Decoder[_T],
    body: bytes | msgspec.Raw,
    *,
    known_fields: Sequence[str] | None = None,
) -> _T:
    """Decodes a body. `known_fields` are the fields of the document, if it is not a submit.

    Raises InvalidNotification for a wrong field, and RequestRefused for a body that is not JSON.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error), known_fields=known_fields) from error
    except RecursionError as error:
        raise InvalidNotification(path_of_deep_nesting(bytes(body)), NESTING_EXPECTED) from error
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
