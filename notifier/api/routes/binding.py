"""Makes Litestar's handlers from the route table and the objects that serve its resources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import iscoroutinefunction, signature
from typing import Any, Final

from litestar import HttpMethod, Request, route
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Scope

from notifier.api.auth.gate import Gate
from notifier.api.http.raw_response import RawResponse
from notifier.api.http.unsupported import (
    refuse_idempotency_key,
    refuse_query,
    refuse_unsupported_headers,
)
from notifier.api.routes.route import Handler, Route

_VERSION_PREFIX: Final = "/v1/"
Check = Callable[[Scope], None]
"""Raises if a request must be refused."""


def bind_routes(
    routes: Sequence[Route], resources: Sequence[object], gate: Gate
) -> list[HTTPRouteHandler]:
    """Returns one handler per route, behind the gate, after one OPTIONS handler per path.

    Each route's handler is bound to the resource whose class defines it. Raises LookupError if no
    resource defines it, and if a public coroutine method of a resource has no route.
    """
    bound = {
        function: getattr(resource, function.__name__)
        for resource in resources
        for function in _public_handlers(type(resource))
    }
    routed = {route.handler for route in routes}
    if unrouted := [handler.__qualname__ for handler in bound if handler not in routed]:
        raise LookupError(f"handlers without a route: {', '.join(unrouted)}")
    if unserved := [route.id for route in routes if route.handler not in bound]:
        raise LookupError(f"routes without a resource that serves them: {', '.join(unserved)}")
    handlers = [_bind(route, bound[route.handler], gate) for route in routes]
    cross_origin = _cross_origin_methods(routes)
    return [*_options_handlers(handlers, cross_origin, gate), *handlers]


def _public_handlers(resource_type: type) -> Iterator[Handler]:
    for name, member in vars(resource_type).items():
        if iscoroutinefunction(member) and not name.startswith("_"):
            yield member


def _bind(described: Route, handler: Handler, gate: Gate) -> HTTPRouteHandler:
    method = HttpMethod(described.method.upper())
    # Some health checks ask with HEAD, so every GET route also answers HEAD.
    methods = [method, HttpMethod.HEAD] if method is HttpMethod.GET else [method]
    return route(
        described.path,
        http_method=methods,
        status_code=200,  # the response has its own, and Litestar refuses one for a 204
    )(_guarded(_checked(handler, list(_checks(described))), described, gate))


def _guarded(handler: Handler, described: Route, gate: Gate) -> Handler:
    """Returns a handler that asks the gate first. Litestar's guards cost ten times as much."""
    access = described.access
    if not gate.guards(access):
        return handler
    takes_request, is_safe = bool(signature(handler).parameters), described.method == "get"

    async def handle(request: Request[Any, Any, Any]) -> ASGIApp:
        await gate.admit(request.scope, access, is_safe=is_safe)
        return await (handler(request) if takes_request else handler())

    return handle


def _checked(handler: Handler, checks: Sequence[Check]) -> Handler:
    """Returns a handler that checks the request first."""
    if not checks:
        return handler
    takes_request = bool(signature(handler).parameters)

    async def handle(request: Request[Any, Any, Any]) -> ASGIApp:
        for check in checks:
            check(request.scope)
        return await (handler(request) if takes_request else handler())

    return handle


def _checks(described: Route) -> Iterator[Check]:
    # Health checks, scrapers and browsers may add parameters of their own to the other routes.
    is_versioned = described.path.startswith(_VERSION_PREFIX)
    if is_versioned and not (described.query_parameters or described.takes_any_query):
        yield refuse_query
    if described.method != "get":
        yield refuse_unsupported_headers
    # PUT and DELETE are idempotent without a key.
    if described.method == "post" and not (described.takes_key or described.is_repeatable):
        yield refuse_idempotency_key


def _cross_origin_methods(routes: Sequence[Route]) -> Mapping[str, Collection[str]]:
    """Returns the methods of each path that pages of other origins may call."""
    methods: defaultdict[str, set[str]] = defaultdict(set)
    for described in routes:
        if described.access.takes_user_token:
            methods[described.path].add(described.method.upper())
    return methods


def _options_handlers(
    handlers: Sequence[HTTPRouteHandler], cross_origin: Mapping[str, Collection[str]], gate: Gate
) -> list[HTTPRouteHandler]:
    # Litestar's own OPTIONS handler forgets methods of a path with several handlers. It adds none
    # where one is registered already, so these have to come first.
    methods: defaultdict[str, set[str]] = defaultdict(lambda: {"OPTIONS"})
    for handler in handlers:
        for path in handler.paths:
            methods[path] |= handler.http_methods
    return [
        _options(path, ", ".join(sorted(allowed)), cross_origin.get(path, ()), gate)
        for path, allowed in methods.items()
    ]


def _options(
    path: str, allowed: str, cross_origin: Collection[str], gate: Gate
) -> HTTPRouteHandler:
    @route(path, http_method=HttpMethod.OPTIONS)
    async def options(request: Request[Any, Any, Any]) -> ASGIApp:
        headers = [(b"allow", allowed.encode())]
        if cross_origin:
            headers += gate.preflight_headers(request.scope, cross_origin)
        return RawResponse(200, b"", headers)

    return options
