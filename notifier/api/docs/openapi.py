"""The OpenAPI 3.1 document, from the table of operations and the structs on the wire."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from notifier import __version__
from notifier.api import requests, responses
from notifier.api.http.problems import PREFIX, PROBLEM_TYPE, Kind
from notifier.api.http.query import DEFAULT_LIMIT, MAX_LIMIT, MAX_REASON
from notifier.api.routes.table import ROUTES, Route
from notifier.api.settings import ApiSettings
from notifier.domain.controls import ScopeKind

Json = dict[str, Any]
_REF: Final = "#/components/schemas/{name}"
_STRUCTS: Final = (
    requests.Submit,
    requests.PauseRequest,
    responses.Accepted,
    responses.BatchResponse,
    responses.BatchRefusal,
    responses.Notification,
    responses.NotificationPage,
    responses.FailurePage,
    responses.Queue,
    responses.ProviderHealth,
    responses.PauseState,
    responses.Resumed,
    responses.Health,
    responses.Problem,
)
_INSTANT: Final = {"type": "string", "format": "date-time"}
_REASON: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_REASON,
    "pattern": "^[ -~]+$",
}
_PARAMETERS: Final[dict[str, tuple[str, Json]]] = {
    "id": ("The id that the submit answered.", {"type": "string", "format": "uuid"}),
    "status": ("Only in this status.", {"$ref": _REF.format(name="Status")}),
    "priority": ("Only of this priority.", {"$ref": _REF.format(name="Priority")}),
    "reason": ("Only failures with this reason.", _REASON),
    "created_from": ("Only created at or after this instant.", _INSTANT),
    "created_to": ("Only created before this instant.", _INSTANT),
    "cursor": ("`next_cursor` of the page before.", {"type": "string", "pattern": "^[\\w-]{22}$"}),
    "limit": (
        "How many at most.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
}


def openapi_document(settings: ApiSettings) -> Json:
    """Describe the API as it is under these settings."""
    paths: Json = {}
    for operation in ROUTES:
        path = paths.setdefault(operation.shown_path, {})
        path[operation.method] = _operation(operation, settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Notifier",
            "version": __version__,
            "description": (
                f"Submit notifications and follow what becomes of them. {settings.bounds}"
            ),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(settings)},
    }


def _schemas(settings: ApiSettings) -> Json:
    _, found = msgspec.json.schema_components(_STRUCTS, ref_template=_REF)
    schemas: Json = dict(found)
    schemas["Submit"]["properties"]["channel"] = {"enum": list(settings.channels)}
    ttl = schemas["Submit"]["properties"]["ttl"]
    ttl["anyOf"][0]["maximum"] = settings.max_ttl.total_seconds()
    schemas["Batch"] = _batch(settings)
    kinds = [PREFIX + kind.value.slug for kind in Kind]
    schemas["Problem"]["properties"]["type"]["examples"] = kinds
    return schemas


def _batch(settings: ApiSettings) -> Json:
    """An item that is no Submit gets its own problem; the batch as such stays good."""
    items = {"type": "array", "minItems": 1, "maxItems": settings.max_batch}
    return {
        "type": "object",
        "description": requests.Batch.__doc__,
        "properties": {"notifications": {**items, "items": {"$ref": _REF.format(name="Submit")}}},
        "required": ["notifications"],
        "additionalProperties": False,
    }


def _operation(operation: Route, settings: ApiSettings) -> Json:
    answers: Json = {str(operation.status): _answer(operation)}
    for kind in operation.problems:
        answers[str(kind.status)] = _problem(kind)
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": answers,
    }
    if operation.parameters:
        described["parameters"] = [
            _parameter(name, operation, settings) for name in operation.parameters
        ]
    if operation.takes:
        schema = {"$ref": _REF.format(name=operation.takes)}
        described["requestBody"] = {
            "required": not operation.is_body_optional,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _answer(operation: Route) -> Json:
    if operation.answer is None:
        return {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    schema: Json = {"$ref": _REF.format(name=operation.answer)}
    if operation.is_list:
        schema = {"type": "array", "items": schema}
    answer: Json = {
        "description": "As asked.",
        "content": {"application/json": {"schema": schema}},
    }
    if operation.answer == "Accepted":
        location = {"description": "Where it can be read.", "schema": {"type": "string"}}
        answer["headers"] = {"Location": location}
    return answer


def _problem(kind: Kind) -> Json:
    schema = {"$ref": _REF.format(name="Problem")}
    return {"description": kind.value.title, "content": {PROBLEM_TYPE: {"schema": schema}}}


def _parameter(name: str, operation: Route, settings: ApiSettings) -> Json:
    is_in_path = f"{{{name}:str}}" in operation.path
    described, schema = _PARAMETERS.get(name) or _named(name, settings, is_in_path=is_in_path)
    return {
        "name": name,
        "in": "path" if is_in_path else "query",
        "required": is_in_path,
        "description": described,
        "schema": schema,
    }


def _named(name: str, settings: ApiSettings, *, is_in_path: bool) -> tuple[str, Json]:
    """Describe a parameter that names a queue, a channel or a provider."""
    kind = ScopeKind(name)
    names = list(settings.names_of(kind))
    schema: Json = {"enum": names} if names else {"type": "string"}
    return (f"The {kind}." if is_in_path else f"Only on this {kind}."), schema
