"""The HTTP API put together: which handlers there are, and what errors become."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from litestar import Litestar

from notifier.api.board import Board
from notifier.api.health import health_handlers
from notifier.api.problems import answer_problem
from notifier.api.reading import read_handlers
from notifier.api.reference import reference_handlers
from notifier.api.settings import ApiSettings
from notifier.api.submitting import submit_handlers
from notifier.ports import Acceptor, Reader


def create_api(
    *,
    acceptor: Acceptor,
    reader: Reader,
    board: Board,
    settings: ApiSettings,
    readiness: Callable[[], Sequence[str]],
    metrics: Callable[[], tuple[bytes, str]],
) -> Litestar:
    """Make the ASGI app. `readiness` gives reasons why not; `metrics` text and content type."""
    return Litestar(
        route_handlers=[
            *submit_handlers(acceptor=acceptor, settings=settings),
            *read_handlers(reader=reader, board=board, settings=settings),
            *health_handlers(readiness=readiness, metrics=metrics),
            *reference_handlers(settings),
        ],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
