from __future__ import annotations

from dataclasses import replace

import pytest
from litestar.types import ASGIApp

from notifier.api.auth.access import PUBLIC
from notifier.api.auth.gate import Gate
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.raw_response import RawResponse
from notifier.api.routes.binding import bind_routes
from notifier.api.routes.health import HealthRoutes
from notifier.api.routes.route import Route
from notifier.api.routes.table import ROUTES


class LampRoutes:
    async def read(self) -> ASGIApp:
        return RawResponse(200, b"{}")


GATE = Gate(None, PublicAddress("", ()))
READ = Route(
    id="read", access=PUBLIC, method="get", path="/lamp", handler=LampRoutes.read, summary="A lamp."
)


def test_a_route_gets_the_handler_of_its_resource_and_an_options_handler() -> None:
    options, read = bind_routes([READ], [LampRoutes()], GATE)
    assert (options.paths, options.http_methods) == ({"/lamp"}, {"OPTIONS"})
    assert (read.paths, read.http_methods) == ({"/lamp"}, {"GET", "HEAD"})


def test_a_handler_without_a_route_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"LampRoutes\.read"):
        bind_routes([], [LampRoutes()], GATE)


def test_a_route_without_a_resource_is_an_error() -> None:
    stray = replace(READ, id="stray", handler=HealthRoutes.live)
    with pytest.raises(LookupError, match="stray"):
        bind_routes([READ, stray], [LampRoutes()], GATE)


def test_every_method_on_a_path_and_every_id_stands_once_in_the_table() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert len({route.id for route in ROUTES}) == len(ROUTES)
