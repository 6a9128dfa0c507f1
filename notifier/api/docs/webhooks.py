"""Describes the calls that webhooks get, as the section `webhooks` of the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]
_EVENT: Final = {"$ref": "#/components/schemas/Event"}


def _header(name: str, description: str, schema: Json) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": schema,
    }


WEBHOOKS: Final[Json] = {
    "event": {
        "post": {
            "operationId": "receiveEvent",
            "tags": ["webhooks"],
            "summary": "An event, posted to the URL of a webhook. Signed by Standard Webhooks.",
            "parameters": [
                _header(
                    "webhook-id",
                    "The id of the event: the same one each time that it is sent.",
                    {"type": "string", "format": "uuid"},
                ),
                _header(
                    "webhook-timestamp",
                    "When this call was made, in seconds since the epoch.",
                    {"type": "string", "pattern": "^[0-9]+$"},
                ),
                _header(
                    "webhook-signature",
                    "A signature for each secret that holds, with blanks between them.",
                    {
                        "type": "string",
                        "pattern": "^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)*$",
                    },
                ),
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _EVENT}},
            },
            "responses": {
                "2XX": {"description": "It was received."},
                "410": {"description": "The webhook is disabled: it is not called any more."},
                "default": {"description": "It is sent again later."},
            },
        }
    }
}
