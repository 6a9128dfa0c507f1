"""The HTTP API put together: which handlers there are, and what errors become."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from litestar import HttpMethod, Litestar, route
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from notifier.api.docs.reference import reference_handlers
from notifier.api.http.problems import answer_problem
from notifier.api.http.raw_response import RawResponse
from notifier.api.routes.health import health_handlers
from notifier.api.routes.pauses import Pausing, pause_handlers
from notifier.api.routes.reading import read_handlers
from notifier.api.routes.submit import submit_handlers
from notifier.api.settings import ApiSettings
from notifier.api.status_reader import Board
from notifier.ports.acceptor import Acceptor
from notifier.ports.queries import Reader


def create_api(
    *,
    acceptor: Acceptor,
    reader: Reader,
    board: Board,
    pausing: Pausing,
    settings: ApiSettings,
    readiness: Callable[[], Sequence[str]],
    metrics: Callable[[], tuple[bytes, str]],
) -> Litestar:
    """Make the ASGI app. `readiness` gives reasons why not; `metrics` text and content type."""
    handlers = [
        *submit_handlers(acceptor=acceptor, settings=settings),
        *read_handlers(reader=reader, board=board, settings=settings),
        *pause_handlers(pausing=pausing, settings=settings),
        *health_handlers(readiness=readiness, metrics=metrics),
        *reference_handlers(settings),
    ]
    return Litestar(
        route_handlers=[*_options_handlers(handlers), *handlers],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def _options_handlers(handlers: Sequence[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """Make what Litestar would add itself, but forgetting methods of a path with several handlers.

    They have to be registered first: then it adds none.
    """
    methods: defaultdict[str, set[str]] = defaultdict(lambda: {"OPTIONS"})
    for handler in handlers:
        for path in handler.paths:
            methods[path] |= handler.http_methods
    return [_options(path, ", ".join(sorted(allowed))) for path, allowed in methods.items()]


def _options(path: str, allowed: str) -> HTTPRouteHandler:
    @route(path, http_method=HttpMethod.OPTIONS)
    async def options() -> ASGIApp:
        return RawResponse(200, b"", [(b"allow", allowed.encode())])

    return options
