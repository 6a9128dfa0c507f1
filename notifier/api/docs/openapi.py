"""Generates the OpenAPI 3.1 document from the route table and the request and response structs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from notifier import __version__
from notifier.api.auth.access import Access, AccessKind
from notifier.api.auth.sessions import COOKIE
from notifier.api.docs.webhooks import WEBHOOKS
from notifier.api.http.json_checks import MAX_DEPTH
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import PROBLEM_MEDIA_TYPE
from notifier.api.http.query import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MAX_SEARCHED_LENGTH,
    MAX_TEXT_LENGTH,
    MAX_VALUES,
    METADATA,
    OF_RESULTS,
    offered_filters,
)
from notifier.api.requests import (
    JSON_MEMBERS,
    MAX_KEY_LENGTH,
    MAX_OPERATION_IDS,
    NO_NUL,
    PRINTABLE_ASCII,
    Batch,
)
from notifier.api.responses import Accepted, BatchRefusal, Problem
from notifier.api.routes.notifications import INCLUDED, LOOKUP_FILTERS, NOTIFICATION_FILTERS
from notifier.api.routes.operations import BESIDE_IDS
from notifier.api.routes.route import Route
from notifier.api.routes.stats import DEFAULT_STEP
from notifier.api.rules import AddressKind, ApiRules
from notifier.api.submission.address_schemas import USER_PATTERN, recipient_schema
from notifier.api.submission.content import content_schema
from notifier.api.submission.email_schemas import head_schemas
from notifier.api.submission.idempotency import HEADER
from notifier.api.templating.documents import LOCALES_SCHEMA
from notifier.domain.controls import ScopeKind
from notifier.domain.credentials import KEY_ID, Mode
from notifier.domain.event_cursor import MAX_CURSOR_BYTES
from notifier.domain.inbox import MAX_TOKEN_LENGTH, MAX_USER_LENGTH, TOKEN_PREFIX
from notifier.domain.notification import FINAL, EndReason, Status, Unless
from notifier.domain.operations import OperationKind, OperationStatus
from notifier.domain.stats import Dimension, Step
from notifier.domain.suppressions import SuppressionReason
from notifier.domain.templates import TEMPLATE_NAME
from notifier.domain.tenants import TENANT_NAME
from notifier.domain.webhook_signature import SIGNATURE

Json = dict[str, Any]
NO_CONTENT: Final = 204
_REF: Final = "#/components/schemas/{name}"
_REFERRED_STRUCTS: Final = (Accepted, BatchRefusal, Problem)
"""Structs that other schemas refer to by name only."""


def _one_of(names: Iterable[str]) -> Json:
    return {"type": "string", "enum": list(names)}


def _any_of(item: Json) -> Json:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_VALUES}


_NULL: Final = {"type": "null"}
_INSTANT: Final = {"type": "string", "format": "date-time"}
_ID: Final = {"type": "string", "format": "uuid"}
_TEXT: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_TEXT_LENGTH,
    "pattern": r"^[ -+\--~]+$",
}
_SEARCHED: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_SEARCHED_LENGTH,
    "pattern": r"^[ -+\--~]+$",
}
_PARAMETERS: Final[dict[str, tuple[str, Json]]] = {
    "id": ("The id from the response to the submit.", _ID),
    "key": (
        "The id of a key, which is no secret.",
        {"type": "string", "pattern": f"^{KEY_ID.pattern}$"},
    ),
    "tenant": (
        "The name of a tenant. A key of a tenant needs to name none.",
        {"type": "string", "pattern": f"^{TENANT_NAME}$"},
    ),
    "mode": (
        "Only live notifications, or only those of tests. A key sees only those of its mode.",
        _one_of(Mode),
    ),
    "actor": ("Only of this actor, such as key:8Rk2vQ0ZpLx1.", _TEXT),
    "action": ("Only this action, such as key.created.", _TEXT),
    "target": ("Only on this target, such as key:8Rk2vQ0ZpLx1.", _TEXT),
    "kind": ("What is paused.", _one_of(ScopeKind)),
    "template": (
        "The name of a template.",
        {"type": "string", "pattern": f"^{TEMPLATE_NAME}$"},
    ),
    "version": ("The number of a version.", {"type": "integer", "minimum": 1}),
    "name": ("The name of the queue, channel, provider, tag or tenant.", {"type": "string"}),
    "include": ("Parts of the answer that are left out otherwise.", _any_of(_one_of(INCLUDED))),
    "status": ("Only in one of these.", _any_of({"$ref": _REF.format(name="Status")})),
    "priority": ("Only of these priorities.", _any_of({"$ref": _REF.format(name="Priority")})),
    "reason": ("Only with a result for one of these reasons.", _any_of(_one_of(EndReason))),
    "provider": ("Only with a result of one of these providers.", _any_of(_TEXT)),
    "code": ("Only with a result with one of these codes.", _any_of(_TEXT)),
    "tag": ("Only with one of these tags.", _any_of(_SEARCHED)),
    "recipient": ("Only to one of these recipients.", _any_of(_SEARCHED)),
    "reference": ("Only with one of these ids of a provider.", _any_of(_SEARCHED)),
    "webhook": ("Only calls of one of these webhooks.", _any_of(_ID)),
    "q": (
        "An id; a recipient or a provider's id, if the settings have lookups of them.",
        _ID,
    ),
    "created_from": ("Only created at or after this instant.", _INSTANT),
    "created_to": ("Only created before this instant.", _INSTANT),
    "cursor": (
        "`next_cursor` of the previous page, with the same filters.",
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    ),
    "limit": (
        "The maximum number of rows.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
}


_PARAMETERS_BY_TAG: Final[dict[str, dict[str, tuple[str, Json]]]] = {
    "suppressions": {
        "suppression": ("The id of the suppression.", _ID),
        "topic": ("Only of one of these topics.", _any_of(_TEXT)),
        "reason": ("Only for one of these reasons.", _any_of(_one_of(SuppressionReason))),
    },
    "schedules": {
        "schedule": ("The id of the schedule.", _ID),
        "include": (
            "Parts of the answer that are left out otherwise. They need the scope `operate`.",
            _any_of(_one_of(["notification"])),
        ),
    },
    "webhooks": {
        "webhook": ("The id of the webhook.", _ID),
    },
    "events": {
        "type": (
            "Only of these types; notification.* stands for all those that begin so.",
            _any_of({"type": "string", "pattern": r"^[a-z]+\.([a-z]+|\*)$"}),
        ),
        "notification": ("Only of these notifications.", _any_of(_ID)),
        "from": ("Only from about this instant on, if no cursor is given.", _INSTANT),
        "cursor": (
            "`next_cursor` of the previous page, or the id of an event of a stream.",
            {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": MAX_CURSOR_BYTES},
        ),
    },
    "stats": {
        "from": (
            "From this instant on. Default: the last 60 minutes, 24 hours or 30 days.",
            _INSTANT,
        ),
        "to": ("Before this instant. Default: now.", _INSTANT),
        "step": ("The length of the steps.", {**_one_of(Step), "default": DEFAULT_STEP}),
        "by": ("Tell rows apart by these.", _any_of(_one_of(Dimension))),
        "tenant": (
            "Of one tenant, with a deployment key. Default: of all tenants together.",
            {"type": "string", "pattern": f"^{TENANT_NAME}$"},
        ),
    },
    "inbox": {
        "user": (
            "The id of a user, percent-encoded, as the recipient in a submit.",
            {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_USER_LENGTH,
                "pattern": USER_PATTERN,
            },
        ),
        "unread": ("Only unread entries.", {"type": "boolean", "default": False}),
        "token": (
            "A user token, for readers that send no header, such as EventSource.",
            {"type": "string", "pattern": f"^{TOKEN_PREFIX}", "maxLength": MAX_TOKEN_LENGTH},
        ),
    },
    "deployment": {
        "provider": ("The name of a provider.", {"type": "string"}),
    },
    "operations": {
        "operation": ("The id of the operation.", _ID),
        "kind": ("Only of one of these kinds.", _any_of(_one_of(OperationKind))),
        "status": ("Only in one of these.", _any_of(_one_of(OperationStatus))),
    },
}
"""Parameters that mean something else than those of the same name of other groups."""
_KEY_PARAMETER: Final[Json] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": (
        "A request that is repeated with the same key and body stores nothing and gets the same "
        "answer; with another body it is refused. In a batch K gives the item n, counted from 0, "
        "the key K#n, unless it has an idempotency_key."
    ),
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_LENGTH,
        "pattern": PRINTABLE_ASCII,
    },
}
BINARY: Final = "application/octet-stream"
_FILE_BODY: Final[Json] = {
    "schema": {"type": "string", "format": "binary", "contentMediaType": BINARY},
    "example": "the bytes of the file",
}
_REPLAYED_HEADER: Final[Json] = {
    "description": "`true` if the request stored nothing, because earlier ones had.",
    "schema": {"type": "string", "enum": ["true"]},
}
_BEARER: Final = "key"
_SESSION: Final = "session"
_SIGNATURE: Final = "signature"
_USER: Final = "user"
_SECURITY_SCHEMES: Final[Json] = {
    _BEARER: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "ntf_live_... or ntf_test_...",
        "description": "A key that `notifier keys create` or `POST /v1/keys` has made.",
    },
    _USER: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": f"{TOKEN_PREFIX}...",
        "description": "A token of a user, from `POST /v1/inbox/{user}/token`.",
    },
    _SESSION: {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "The session of a browser, from `POST /v1/session`.",
    },
    _SIGNATURE: {
        "type": "apiKey",
        "in": "header",
        "name": SIGNATURE,
        "description": "The provider's signature; in Notifier's own form, Standard Webhooks v1.",
    },
}
_ACCESS_PROBLEMS: Final = (
    ProblemType.KEY_MISSING,
    ProblemType.SCOPE_MISSING,
    ProblemType.RATE_LIMITED,
    ProblemType.STORE_UNAVAILABLE,
)
"""What every route that asks for a key may answer, by their statuses."""
_JSON_VALUE: Final[Json] = {
    "description": f"Any JSON that nests at most {MAX_DEPTH} levels, without NUL characters.",
    "pattern": NO_NUL,
    "items": {"$ref": _REF.format(name="JsonValue")},
    **JSON_MEMBERS,
}
"""Without a type: each keyword concerns values of one type. Some generators of clients fail on a
union that contains itself."""


def openapi_document(routes: Sequence[Route], rules: ApiRules) -> Json:
    """Describes the documented routes under these rules. The caller adds `servers`."""
    documented = [route for route in routes if route.is_documented]
    paths: Json = {}
    for route in documented:
        paths.setdefault(route.openapi_path, {})[route.method] = _operation(route, rules)
    return {
        "openapi": "3.1.0",
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in documented)],
        "info": {
            "title": "Notifier",
            "version": __version__,
            "description": (
                f"Submit notifications and follow their delivery. {rules.size_limits_text} Lists "
                "are answered as CSV to `Accept: text/csv`, with the cursor in the header "
                "Next-Cursor. Those of queues, providers, workers "
                "and pauses always have one page. Every answer has a Request-Id: that of the "
                "request, or a new one."
            ),
        },
        "paths": paths,
        "webhooks": WEBHOOKS,
        "components": {
            "schemas": _schemas(documented, rules),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _schemas(routes: Sequence[Route], rules: ApiRules) -> Json:
    structs = [
        struct
        for route in routes
        for struct in (route.body, route.response, route.csv_response)
        if struct
    ]
    _, components = msgspec.json.schema_components(
        dict.fromkeys([*structs, *_REFERRED_STRUCTS]), ref_template=_REF
    )
    schemas: Json = {name: _for_generators(schema) for name, schema in components.items()}
    schemas["Submit"]["properties"]["channel"] = _one_of(rules.submit_channels)
    schemas["TemplateParts"]["properties"]["locales"] |= LOCALES_SCHEMA
    schemas["Submit"]["allOf"] = [
        *(_channel_rule(kind, rules) for kind in _kinds(rules)),
        *_unless_rules(rules),
    ]
    schemas["SuppressionRequest"]["properties"]["channel"] = _one_of(rules.submit_channels)
    schemas["SuppressionRequest"]["allOf"] = [
        _recipient_rule(kind, rules) for kind in _kinds(rules)
    ]
    schemas["OperationRequest"]["properties"]["filter"] |= _operation_filter(rules)
    schemas["OperationRequest"]["allOf"] = [_filter_rule(kind) for kind in OperationKind]
    fallback = schemas["Fallback"]
    fallback["properties"]["channel"] = _one_of(rules.submit_channels)
    fallback["properties"]["after_s"]["maximum"] = rules.max_ttl.total_seconds()
    fallback["allOf"] = [_fallback_rule(kind, rules) for kind in _kinds(rules)]
    schemas["InboxReadRequest"]["allOf"] = [_IDS_OR_INSTANT]
    fields = schemas["Submit"]["properties"]
    fields["ttl_s"]["anyOf"][0]["maximum"] = rules.max_ttl.total_seconds()
    fields["max_tries"]["anyOf"][0]["type"] = "integer"
    schemas["JsonValue"] = _JSON_VALUE
    schemas["Batch"] = _batch_schema(rules)
    problem_types = [problem_type.uri for problem_type in ProblemType]
    schemas["Problem"]["properties"]["type"]["examples"] = problem_types
    return schemas


def _operation_filter(rules: ApiRules) -> Json:
    """Describes the filter of an operation: the parameters of the list, or ids."""
    names = offered_filters((*NOTIFICATION_FILTERS, *LOOKUP_FILTERS), rules.lookups)
    properties = {name: _one_or_more(_described(name, rules)[1]) for name in names if name != "q"}
    ids = {"type": "array", "items": _ID, "minItems": 1, "maxItems": MAX_OPERATION_IDS}
    beside = {name: properties[name] for name in BESIDE_IDS}
    return {
        "type": "object",
        "anyOf": [
            {"properties": properties, "minProperties": 1, "additionalProperties": False},
            {
                "properties": {"ids": ids, **beside},
                "required": ["ids"],
                "additionalProperties": False,
            },
        ],
    }


def _one_or_more(schema: Json) -> Json:
    """Describes a value, or an array of them where the schema is that of an array."""
    return {"anyOf": [schema["items"], schema]} if schema.get("type") == "array" else schema


def _filter_rule(kind: OperationKind) -> Json:
    """Describes which statuses the filter of a kind may name, and that results need such."""
    statuses = _one_or_more(_any_of(_one_of(status for status in Status if status in kind.accepts)))
    fields: Json = {"status": statuses}
    if not kind.accepts <= FINAL:
        fields |= dict.fromkeys(OF_RESULTS, False)
    return {
        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
        "then": {"properties": {"filter": {"properties": fields}}},
    }


def _for_generators(schema: Json) -> Json:
    """Returns a schema of msgspec as generators of clients need it.

    Some generators make a field with a default required, and take an enum without a type for any
    value.
    """
    converted: Json = {}
    for key, value in schema.items():
        match key, value:
            case "default", _:
                continue
            case "enum", _:
                converted |= {"type": "string", "enum": value}
            case "description", str():
                converted[key] = inspect.cleandoc(value)
            case "properties", dict():
                converted[key] = {name: _for_generators(field) for name, field in value.items()}
            case _, dict():
                converted[key] = _for_generators(value)
            case "anyOf" | "oneOf", list():
                converted[key] = [_for_generators(variant) for variant in value]
            case _:
                converted[key] = value
    return converted


def _kinds(rules: ApiRules) -> Sequence[AddressKind]:
    used = {channel.address for channel in rules.submit_channels.values()}
    return [kind for kind in AddressKind if kind in used]


def _channel_rule(kind: AddressKind, rules: ApiRules) -> Json:
    """Describes the recipients and the contents of the channels with this kind of address."""
    properties: Json = {"recipient": recipient_schema(kind)}
    if kind is AddressKind.EMAIL and not rules.public_url:
        properties["topic"] = {"type": "null"}
    rule = _rule(kind, rules, properties)
    rule["then"]["anyOf"] = [_with_content(kind), _with_template(kind)]
    return rule


def _fallback_rule(kind: AddressKind, rules: ApiRules) -> Json:
    """Describes the same of a fallback, which has the topic of its notification."""
    rule = _recipient_rule(kind, rules)
    rule["then"]["anyOf"] = [_with_content(kind), _with_template(kind)]
    return rule


def _unless_rules(rules: ApiRules) -> Sequence[Json]:
    """Describes which channels' fallbacks cannot wait for a receipt."""
    names = [name for name, channel in rules.submit_channels.items() if not channel.has_receipts]
    if not names:
        return ()
    sent = {"properties": {"unless": {"type": "string", "enum": [Unless.SENT]}}}
    return (
        {
            "if": {"properties": {"channel": _one_of(names)}, "required": ["channel"]},
            "then": {"properties": {"fallback": sent}},
        },
    )


def _recipient_rule(kind: AddressKind, rules: ApiRules) -> Json:
    """Describes the recipients of the channels with this kind of address."""
    return _rule(kind, rules, {"recipient": recipient_schema(kind)})


def _rule(kind: AddressKind, rules: ApiRules, properties: Json) -> Json:
    channels = rules.submit_channels.items()
    names = [name for name, channel in channels if channel.address is kind]
    return {
        "if": {"properties": {"channel": _one_of(names)}, "required": ["channel"]},
        "then": {"properties": properties},
    }


def _with_content(kind: AddressKind) -> Json:
    no_template = dict.fromkeys(("template", "variables", "locale"), _NULL)
    content = {"type": "object", **content_schema(kind)}
    return {"properties": {"content": content, **no_template}, "required": ["content"]}


def _with_template(kind: AddressKind) -> Json:
    no_texts = dict.fromkeys(("subject", "body", "html", "data"), _NULL)
    beside = {"type": "object", "properties": {**head_schemas(kind), **no_texts}}
    return {
        "properties": {
            "template": {"type": "string"},
            "content": {"anyOf": [_NULL, beside]},
        },
        "required": ["template"],
    }


def _batch_schema(rules: ApiRules) -> Json:
    # The struct holds raw JSON, because each item that is not a Submit gets its own problem.
    return {
        "type": "object",
        "description": Batch.__doc__,
        "properties": {
            "notifications": {
                "type": "array",
                "minItems": 1,
                "maxItems": rules.max_batch,
                "items": {"$ref": _REF.format(name="Submit")},
            }
        },
        "required": ["notifications"],
        "additionalProperties": False,
    }


def _operation(route: Route, rules: ApiRules) -> Json:
    responses: Json = {str(route.status): _response(route)}
    if route.other_status:
        responses[str(route.other_status)] = _response(route)
    if route.csv_response is not None:
        created = [route.response] if route.response else []
        responses["200"] = _json_or(*created, route.csv_response)
    is_guarded = route.access.is_guarded(guards_metrics=rules.guards_metrics)
    for problem_type in (*route.problems, *(_ACCESS_PROBLEMS if is_guarded else ())):
        responses[str(problem_type.status)] = _problem_response(problem_type)
    operation: Json = {
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.summary,
        "responses": responses,
    }
    operation |= _access_members(route.access, is_guarded=is_guarded)
    if route.is_deprecated:
        operation["deprecated"] = True
    names = offered_filters(route.parameters, rules.lookups)
    parameters = [_parameter(name, route, rules) for name in names]
    if route.takes_key:
        parameters.append(_KEY_PARAMETER)
    if parameters:
        operation["parameters"] = parameters
    if route.is_file:
        operation["requestBody"] = {"required": True, "content": {BINARY: _FILE_BODY}}
    if route.body:
        operation["requestBody"] = {
            "required": not route.is_body_optional,
            "content": {
                "application/json": {"schema": _reference(route.body), "example": route.example},
                **({} if route.csv_response is None else {"text/csv": _CSV_BODY}),
            },
        }
    return operation


def _json_or(*structs: type[msgspec.Struct]) -> Json:
    schemas = [_reference(struct) for struct in structs]
    return {
        "description": "Success; of a CSV file how many rows were added.",
        "content": {"application/json": {"schema": {"anyOf": schemas}}},
    }


def _access_members(access: Access, *, is_guarded: bool) -> Json:
    """Returns the members of an operation that say what a request needs."""
    if access.kind is AccessKind.PROVIDER:
        return {"security": [{_SIGNATURE: []}]}
    if not is_guarded:
        return {}
    schemes = (_BEARER, _SESSION, *([_USER] if access.takes_user_token else ()))
    return {
        "description": _access_text(access),
        "security": [{scheme: []} for scheme in schemes],
    }


def _access_text(access: Access) -> str:
    """Returns which keys a route takes, in one sentence."""
    kind = f"{'live ' if access.is_live else ''}{'deployment ' if access.for_deployment else ''}key"
    if not access.scopes:
        return f"Needs any {kind}."
    scopes = " or ".join(f"`{scope}`" for scope in access.scopes)
    user = ", or the token of the user" if access.takes_user_token else ""
    return f"Needs a {kind} with the scope {scopes}{user}."


def _response(route: Route) -> Json:
    if route.status == NO_CONTENT:
        return {"description": "Done."}
    if route.response is None:
        return {
            "description": "Plain text.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    # The CSV of a list is not named: clients that are generated would get a page or a text.
    response: Json = {
        "description": "Success.",
        "content": {"application/json": {"schema": _reference(route.response)}},
    }
    if route.response is Accepted:
        response["headers"] = {
            "Location": {"description": "The notification's path.", "schema": {"type": "string"}}
        }
    if route.takes_key:
        response.setdefault("headers", {})["Idempotent-Replayed"] = _REPLAYED_HEADER
    return response


def _problem_response(problem_type: ProblemType) -> Json:
    return {
        "description": problem_type.value.title,
        "content": {PROBLEM_MEDIA_TYPE: {"schema": _reference(Problem)}},
    }


_IDS_OR_INSTANT: Final[Json] = {
    "if": {"properties": {"ids": {"type": "array"}}, "required": ["ids"]},
    "then": {"properties": {"until_at": _NULL}},
    "else": {"properties": {"until_at": {"type": "string"}}, "required": ["until_at"]},
}


_CSV_BODY: Final[Json] = {
    "schema": {"type": "string"},
    "example": "channel,recipient,reason\nemail,ada@example.com,bounce\n",
}


def _reference(struct: type[msgspec.Struct]) -> Json:
    return {"$ref": _REF.format(name=struct.__name__)}


def _parameter(name: str, route: Route, rules: ApiRules) -> Json:
    is_in_path = name not in route.query_parameters
    own = _PARAMETERS_BY_TAG.get(route.tag, {})
    description, schema = own.get(name) or _described(name, rules)
    parameter: Json = {
        "name": name,
        "in": "path" if is_in_path else "query",
        "required": is_in_path,
        "description": description,
        "schema": schema,
    }
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    return parameter


def _described(name: str, rules: ApiRules) -> tuple[str, Json]:
    if name.startswith(f"{METADATA}."):
        return "Only with one of these values of this key of `metadata`.", _any_of(_SEARCHED)
    return _PARAMETERS.get(name) or _channel_parameter(rules)


def _channel_parameter(rules: ApiRules) -> tuple[str, Json]:
    return "Only on these channels.", _any_of(_one_of(rules.submit_channels))
