"""`/docs/problems`: every problem type, from the one table of them."""

from __future__ import annotations

import json
from html import escape
from typing import Final

import msgspec

from notifier.api.docs.html import html_page
from notifier.api.http.problem_types import ProblemType, field_error
from notifier.api.http.request_id import request_urn
from notifier.api.responses import Problem

PROBLEMS_PATH: Final = "/docs/problems"
_REQUEST: Final = request_urn("01a22375-b455-7605-a5d8-2a5c96469f96")
_ERRORS: Final = (
    field_error("recipient", "an email address such as ada@example.com"),
    field_error("content.text", "content.body", "unknown field, did you mean content.body?"),
)


def problem_page(prefix: str) -> str:
    """Renders the page; `prefix` stands before the path of every link."""
    types = "".join(map(_problem_type, ProblemType))
    return html_page(
        "Notifier problems",
        "<h1>Problems</h1><p>Every error is a problem document (RFC 9457) with the media type "
        "<code>application/problem+json</code>. Decide by <code>type</code>; titles and details "
        "may change. <code>instance</code> names the request, as the header "
        "<code>Request-Id</code> does, and as the log does. "
        f'<a href="{escape(prefix)}/docs">All routes</a>.</p>{types}',
    )


def _problem_type(problem_type: ProblemType) -> str:
    definition = problem_type.value
    example = json.dumps(msgspec.to_builtins(_example(problem_type)), indent=2)
    return (
        f'<h2 id="{definition.slug}">{definition.status} <code>{definition.slug}</code></h2>'
        f"<p>{escape(definition.cause)}</p><p>May it be repeated? {escape(definition.repeat)}</p>"
        f"<pre>{escape(example)}</pre>"
    )


def _example(problem_type: ProblemType) -> Problem:
    problem = problem_type.problem(problem_type.value.cause)
    if problem_type is ProblemType.INVALID_FIELD:
        problem = msgspec.structs.replace(problem, detail="2 fields are wrong.", errors=_ERRORS)
    return msgspec.structs.replace(problem, instance=_REQUEST)
