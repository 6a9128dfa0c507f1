"""Refuses requests that ask for something in a place that the API does not read.

A header or a parameter that is ignored in silence lets the caller believe that it has an effect.
Headers that HTTP allows a server to ignore are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_plus

from litestar.types import Scope

from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.domain.errors import InvalidNotification

_NO_KEY: Final = "A repeat of this request would be carried out again."
_NAMED: Final = "The header is called Idempotency-Key."
_NO_OVERRIDE: Final = "The method of the request line counts."
_NO_CONDITION: Final = "There is no state that a condition could be checked against."
_UNSUPPORTED: Final[Mapping[bytes, tuple[str, str]]] = {
    name.lower().encode(): (name, detail)
    for name, detail in {
        "X-Idempotency-Key": _NAMED,
        "X-HTTP-Method-Override": _NO_OVERRIDE,
        "X-HTTP-Method": _NO_OVERRIDE,
        "X-Method-Override": _NO_OVERRIDE,
        "If-Match": _NO_CONDITION,
        "If-Unmodified-Since": _NO_CONDITION,
        "Content-Range": "A body is read as a whole.",
    }.items()
}
"""Headers by their name in lower case: the name to show, and why the header is refused."""


def refuse_unsupported_headers(scope: Scope) -> None:
    """For routes that change something. Raises RequestRefused (400)."""
    for name, _ in scope["headers"]:
        if name in _UNSUPPORTED:
            raise _refusal(*_UNSUPPORTED[name])


def refuse_idempotency_key(scope: Scope) -> None:
    """For routes of POST that would do more the second time. Raises RequestRefused (400)."""
    if any(name == b"idempotency-key" for name, _ in scope["headers"]):
        raise _refusal("Idempotency-Key", _NO_KEY)


def refuse_query(scope: Scope) -> None:
    """For routes without query parameters. Raises InvalidNotification with the first one."""
    query = scope["query_string"]
    if query:
        first = query.decode("latin-1").partition("&")[0]
        name = unquote_plus(first.partition("=")[0])
        raise InvalidNotification(f"?{name}", "no query parameters here")


def _refusal(header: str, detail: str) -> RequestRefused:
    return RequestRefused(
        ProblemType.UNSUPPORTED_HEADER.problem(
            detail, field=header, expected=f"a request without {header}"
        )
    )
