"""The client verifies webhooks as the standard's own library does."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from notifier.domain.webhook_signature import signed_headers
from notifier_client import InvalidSignature, WebhookVerifier, verify_webhook

NOW_S = 1_764_354_046
RAW = b"a secret of the webhook, 32 bytes"
SECRET = "whsec_" + b64encode(RAW).decode()
OTHER = "whsec_" + b64encode(b"another secret, also of 32 bytes").decode()
EVENT: dict[str, Any] = {
    "id": "01a22375-b455-7605-a5d8-2a5c96469f96",
    "type": "notification.of_a_later_version",
    "timestamp": "2025-11-28T18:20:46.820768Z",
    "tenant": "shop",
    "data": {"notification": {"id": "n1", "recipient": "ü@example.com"}},
    "new": True,
}
BODY = json.dumps(EVENT, ensure_ascii=False).encode()
HEADERS = signed_headers(RAW, EVENT["id"], NOW_S, BODY)
SIGNATURE = HEADERS["webhook-signature"]


def verifier(*secrets: str, now_s: float = NOW_S) -> WebhookVerifier:
    return WebhookVerifier(secrets or SECRET, now_s=lambda: now_s)


def test_a_call_of_notifier_is_verified() -> None:
    event = verifier().verify(BODY, HEADERS)
    assert (event.id, event.type, event.tenant) == (EVENT["id"], EVENT["type"], "shop")
    assert event.timestamp == datetime(2025, 11, 28, 18, 20, 46, 820768, tzinfo=UTC)
    assert event.data == EVENT["data"]


def test_a_call_that_the_library_of_the_standard_signs_is_verified() -> None:
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_1", now, BODY.decode())
    headers = {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": signature,
    }
    assert verify_webhook(BODY, headers, SECRET).id == EVENT["id"]
    assert verify_webhook(BODY.decode(), headers, [OTHER, SECRET]).id == EVENT["id"]


@pytest.mark.parametrize(
    "signature",
    [f"v1,{b64encode(bytes(32)).decode()} {SIGNATURE}", f"v1a,abc v2,é {SIGNATURE}", SIGNATURE],
)
def test_one_of_several_signatures_is_enough(signature: str) -> None:
    assert verifier().verify(BODY, {**HEADERS, "webhook-signature": signature}).id == EVENT["id"]


def test_a_receiver_may_have_two_secrets_during_a_rotation() -> None:
    for both in ((OTHER, SECRET), (SECRET, OTHER)):
        assert verifier(*both).verify(BODY, HEADERS).id == EVENT["id"]


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_call_without_a_header_is_refused(name: str) -> None:
    with pytest.raises(InvalidSignature):
        verifier().verify(BODY, {key: value for key, value in HEADERS.items() if key != name})


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (BODY + b" ", {}),
        (BODY.replace(b"n1", b"n2"), {}),
        (BODY, {"webhook-id": "01a22375-b455-7605-a5d8-2a5c96469f97"}),
        (BODY, {"webhook-id": "\ud800"}),
        (BODY, {"webhook-timestamp": str(NOW_S + 1)}),
        (BODY, {"webhook-timestamp": f"{NOW_S}.0"}),
        (BODY, {"webhook-timestamp": f" {NOW_S}"}),
        (BODY, {"webhook-timestamp": "-1"}),
        (BODY, {"webhook-timestamp": "٣"}),
        (BODY, {"webhook-timestamp": "9" * 5000}),
        (BODY, {"webhook-signature": SIGNATURE.removeprefix("v1,")}),
        (BODY, {"webhook-signature": SIGNATURE.replace("v1,", "v2,")}),
        (BODY, {"webhook-signature": SIGNATURE.lower()}),
        (BODY, {"webhook-signature": "v1,\ud800é"}),
        (BODY, {"webhook-signature": "v1, " * 40 + SIGNATURE}),
    ],
)
def test_a_call_that_was_changed_is_refused(body: bytes, changed: Mapping[str, str]) -> None:
    with pytest.raises(InvalidSignature):
        verifier().verify(body, {**HEADERS, **changed})


def test_a_call_with_another_secret_is_refused() -> None:
    with pytest.raises(InvalidSignature, match="secret"):
        verifier(OTHER).verify(BODY, HEADERS)


@pytest.mark.parametrize(("apart_s", "holds"), [(-300, True), (300, True), (-301, 0), (301, 0)])
def test_a_timestamp_may_be_five_minutes_away(apart_s: int, holds: bool) -> None:
    late = verifier(now_s=NOW_S + apart_s)
    if holds:
        assert late.verify(BODY, HEADERS).id == EVENT["id"]
    else:
        with pytest.raises(InvalidSignature, match="clock"):
            late.verify(BODY, HEADERS)


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"id": "1"}'])
def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidSignature, match="no event"):
        verifier().verify(body, signed_headers(RAW, "1", NOW_S, body))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_é", "whsec_a", []])
def test_a_secret_that_is_none_is_an_error_that_does_not_show_it(secret: str | list[str]) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        WebhookVerifier(secret)
    assert "whsec_a" not in str(caught.value)
