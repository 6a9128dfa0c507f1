"""From the bytes of a body to a struct, or to the field that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from notifier.api.http.decode_errors import explain
from notifier.api.http.json_checks import NESTING, deepest_path, find_flaw, parse_anything
from notifier.api.http.problems import Kind, Refusal
from notifier.api.requests import WHOLE_BODY
from notifier.domain.errors import InvalidNotification

_T = TypeVar("_T")


def decode_body(
    decoder: msgspec.json.Decoder[_T], body: bytes | msgspec.Raw, *, known: Sequence[str] = ()
) -> _T:
    """Decode it. Raises InvalidNotification, or Refusal if it is no JSON at all.

    `known` are the fields of a document that is no submit.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explain(str(error), known=known) from error
    except RecursionError as error:
        raise InvalidNotification(deepest_path(bytes(body)), NESTING) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _flaw_in(bytes(body)) or _not_json() from error


def _flaw_in(body: bytes) -> InvalidNotification | None:
    try:
        document = parse_anything(body)
    except (ValueError, RecursionError):
        return None
    return find_flaw(document, "")


def _not_json() -> Refusal:
    expected = "a JSON object (RFC 8259) in UTF-8"
    detail = "The body is empty, cut, or not JSON."
    return Refusal(Kind.MALFORMED.problem(detail, field=WHOLE_BODY, expected=expected))
