"""Whether the process lives, whether it can do its work, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from notifier.api.http.problems import Kind, Refusal
from notifier.api.http.raw_response import RawResponse, json_response, read_route
from notifier.api.responses import Health

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
METRICS: Final = "/metrics"


def health_handlers(
    *, readiness: Callable[[], Sequence[str]], metrics: Callable[[], tuple[bytes, str]]
) -> Sequence[HTTPRouteHandler]:
    """`readiness` gives the reasons why not; none means ready."""

    @read_route(LIVE)
    async def live() -> ASGIApp:
        return json_response(Health("live"))

    @read_route(READY)
    async def ready() -> ASGIApp:
        reasons = readiness()
        if reasons:
            problem = Kind.NOT_READY.problem("; ".join(reasons))
            raise Refusal(msgspec.structs.replace(problem, reasons=reasons), {"Retry-After": "1"})
        return json_response(Health("ready"))

    @read_route(METRICS)
    async def expose() -> ASGIApp:
        text, media_type = metrics()
        return RawResponse(200, text, [(b"content-type", media_type.encode())])

    return [live, ready, expose]
