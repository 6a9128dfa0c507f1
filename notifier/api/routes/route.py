"""One row of the route table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from litestar.types import ASGIApp

from notifier.api.auth.access import Access
from notifier.api.http.problem_types import ProblemType

Handler = Callable[..., Awaitable[ASGIApp]]
"""A method of a class that serves one resource. It takes the request, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path, with its description for the OpenAPI document.

    `id` is the operation id, `access` what it asks of a request, and `tag` the group of the
    document. `body` is None if the route takes no body, `example` is one of its bodies; `response`
    is None if it answers plain text, or nothing. One with a `csv_response` takes CSV, too. One that
    `takes_key` reads the header Idempotency-Key. One that `takes_any_query` ignores parameters,
    which programs add to links. One with `is_file` takes a body of any type as it is. A POST that
    is `is_repeatable` does no more the second time, and ignores the header Idempotency-Key.
    `other_status` is a second one of success. A route that is not `is_documented` appears in no
    document.
    """

    id: str
    access: Access
    tag: str = ""
    method: Literal["get", "post", "put", "patch", "delete"]
    path: str
    handler: Handler
    summary: str
    status: int = 200
    body: type[msgspec.Struct] | None = None
    is_body_optional: bool = False
    takes_key: bool = False
    is_file: bool = False
    is_repeatable: bool = False
    other_status: int | None = None
    example: Mapping[str, object] | None = None
    response: type[msgspec.Struct] | None = None
    parameters: tuple[str, ...] = ()
    problems: tuple[ProblemType, ...] = ()
    csv_response: type[msgspec.Struct] | None = None
    takes_any_query: bool = False
    is_deprecated: bool = False
    is_documented: bool = True

    @property
    def openapi_path(self) -> str:
        """The path as OpenAPI writes it, without Litestar's parameter types."""
        return self.path.replace(":str}", "}").replace(":path}", "}")

    @property
    def query_parameters(self) -> tuple[str, ...]:
        """The parameters that stand in the query string. The others are part of the path."""
        return tuple(name for name in self.parameters if f"{{{name}:" not in self.path)
