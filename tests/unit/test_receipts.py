"""What receipts say, how they are verified, and what the matcher does with failures."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import digest as hmac_digest
from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.registry import receipt_verifier
from notifier.adapters.providers.sandbox_in_worker import SandboxInWorkerSettings
from notifier.adapters.providers.settings import SignedReceiptSettings
from notifier.adapters.providers.signed_receipts import SignedReceiptVerifier
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.delivery.receipt_matcher import MAX_MATCHED, MAX_STEPS, ReceiptMatcher
from notifier.domain.errors import ConfigError, StoreRejected, StoreUnavailable
from notifier.domain.notification import EndReason
from notifier.domain.receipts import (
    MAX_RECEIPTS,
    ReceiptEvent,
    ReceiptResult,
    UndeliveredReason,
    standing_of,
    suppression_reason,
)
from notifier.domain.webhook_signature import (
    MIN_SECRET_BYTES,
    TOLERANCE_S,
    is_signed,
    secret_bytes,
    signed_headers,
)
from notifier.ports.receipts import MatchedReceipt, ReceiptPass, ReceiptRefusal
from tests.memory_receipts import SECRET, SECRET_BYTES, MemoryReceipts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOW: Final = datetime(2026, 11, 28, 18, 40, tzinfo=UTC)
BODY: Final = b'{"receipts": []}'
EVENTS = st.sampled_from(ReceiptEvent)


def headers_of(body: bytes = BODY, *, at: datetime = NOW) -> dict[str, str]:
    return dict(signed_headers(SECRET_BYTES, "msg_1", int(at.timestamp()), body))


def a_document(**fields: object) -> dict[str, object]:
    return {
        "event": "delivered",
        "reference": "SM1",
        "at": "2026-11-28T18:39:00Z",
    } | fields


def verified(*documents: Mapping[str, object]) -> Any:
    body = json.dumps({"receipts": documents}).encode()
    return SignedReceiptVerifier(SECRET_BYTES).verify(body, headers_of(body), NOW)


@given(st.data())
def test_which_receipt_counts_does_not_depend_on_the_order(data: st.DataObject) -> None:
    times = st.integers(0, 2).map(lambda s: NOW + timedelta(seconds=s))
    receipts = data.draw(
        st.lists(st.tuples(EVENTS, times, st.sampled_from(["", "1", "2"])), max_size=5)
    )
    standings = []
    for event, at, code in receipts:
        is_undelivered = event in {ReceiptEvent.BOUNCED, ReceiptEvent.REJECTED}
        reason = UndeliveredReason(event) if is_undelivered else None
        standings.append(standing_of(event, at, reason, code))

    def settle(order: Sequence[Any]) -> Any:
        present = None
        for standing in order:
            if standing is not None and (present is None or standing > present):
                present = standing
        return present

    results = {settle(order) for order in permutations(standings)}
    assert len(results) == 1
    [result] = results
    about = [
        (at, event is ReceiptEvent.DELIVERED)
        for (event, at, _), standing in zip(receipts, standings, strict=True)
        if standing is not None
    ]
    if about:
        assert (result.at, result.is_delivered) == max(about)
    else:
        assert result is None


def test_reasons_of_undelivered_messages_are_reasons_of_results() -> None:
    assert {*UndeliveredReason} <= {*EndReason}


def test_only_a_bounce_for_good_suppresses() -> None:
    suppressed = {
        (event, reason): suppression_reason(event, reason)
        for event in ReceiptEvent
        for reason in (None, *UndeliveredReason)
    }
    assert {event for (event, _), found in suppressed.items() if found} == {
        ReceiptEvent.BOUNCED,
        ReceiptEvent.COMPLAINED,
        ReceiptEvent.UNSUBSCRIBED,
    }
    assert [
        reason
        for (event, reason), found in suppressed.items()
        if found and event is ReceiptEvent.BOUNCED
    ] == [UndeliveredReason.BOUNCED]


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of the standard's libraries."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("change", "is_valid"),
    [
        ({}, True),
        ({"webhook-signature": "v1,AAAA {}"}, True),
        ({"webhook-signature": "v2,AAAA"}, False),
        ({"webhook-signature": ""}, False),
        ({"webhook-signature": "v1,\xff\u20ac"}, False),
        ({"webhook-signature": "a " * 20 + "{}"}, False),
        ({"webhook-id": "msg_2"}, False),
        ({"webhook-id": ""}, False),
        ({"webhook-id": "m" * 300}, False),
        ({"webhook-timestamp": "1"}, False),
        ({"webhook-timestamp": ""}, False),
        ({"webhook-timestamp": "1" * 5000}, False),
        ({"webhook-timestamp": "\u0661"}, False),
        ({"webhook-timestamp": "-1"}, False),
    ],
)
def test_a_request_is_verified_by_its_headers(change: dict[str, str], is_valid: bool) -> None:
    headers = headers_of()
    right = headers["webhook-signature"]
    headers |= {name: value.replace("{}", right) for name, value in change.items()}
    assert is_signed(SECRET_BYTES, headers, BODY, NOW.timestamp()) is is_valid


def test_a_missing_header_a_changed_body_and_another_secret_are_refused() -> None:
    for name in headers_of():
        headers = headers_of()
        del headers[name]
        assert not is_signed(SECRET_BYTES, headers, BODY, NOW.timestamp())
    assert not is_signed(SECRET_BYTES, headers_of(), BODY + b" ", NOW.timestamp())
    assert not is_signed(SECRET_BYTES[::-1], headers_of(), BODY, NOW.timestamp())


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_request_is_valid_for_five_minutes(sign: int) -> None:
    for late_s, is_valid in ((TOLERANCE_S - 1, True), (TOLERANCE_S + 1, False)):
        now = NOW + timedelta(seconds=sign * late_s)
        assert is_signed(SECRET_BYTES, headers_of(), BODY, now.timestamp()) is is_valid


@pytest.mark.parametrize("text", ["short", "whsec_AAAA", "whsec_???", "x" * (MIN_SECRET_BYTES - 1)])
def test_a_weak_secret_is_a_wrong_setting(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        receipt_verifier("sms", HttpSettings(url="http://localhost", receipts_secret=text))
    assert caught.value.key == "providers.sms.receipts_secret"
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        HttpSettings(url="http://localhost", receipts_secret=SECRET),
        SmtpSettings(host="localhost", receipts_secret=SECRET),
        SandboxInWorkerSettings(receipts_secret=SECRET),
    ],
    ids=["http", "smtp", "sandbox"],
)
def test_a_provider_with_a_secret_receives_receipts(settings: SignedReceiptSettings) -> None:
    verifier = receipt_verifier("sms", settings)
    assert verifier is not None
    assert verifier.verify(BODY, headers_of(), NOW) == []
    assert SECRET not in repr(settings)


def test_a_provider_without_a_secret_receives_none() -> None:
    assert receipt_verifier("sms", HttpSettings(url="http://localhost")) is None


def test_the_secret_of_the_tests_is_what_both_forms_say() -> None:
    assert secret_bytes(SECRET) == SECRET_BYTES
    assert secret_bytes(f" {SECRET_BYTES.decode()} \n") == SECRET_BYTES


def test_a_receipt_is_read() -> None:
    [receipt] = verified(
        a_document(
            event="bounced",
            at="2026-11-28T19:39:00+01:00",
            recipient="ada@example.com",
            reason="unreachable",
            code="x" * 100,
            detail="a\0b" * 200,
            later_version=1,
        )
    )
    assert receipt.event is ReceiptEvent.BOUNCED
    assert (receipt.reference, receipt.recipient) == ("SM1", "ada@example.com")
    assert receipt.provider_at == datetime(2026, 11, 28, 18, 39, tzinfo=UTC)
    assert receipt.undelivered_reason is UndeliveredReason.UNREACHABLE
    assert (receipt.code, len(receipt.detail)) == ("x" * 64, 300)
    assert receipt.detail.isprintable()


def test_copies_have_one_key_and_others_have_not() -> None:
    first, copy, other = verified(a_document(), a_document(), a_document(code="1"))
    assert first.key == copy.key != other.key
    one, two, three = verified(
        a_document(id="e-1"), a_document(id="e-1", code="1"), a_document(id="e-2")
    )
    assert one.key == two.key != three.key
    assert first.key not in {one.key, three.key}


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "opened"},
        {"event": None},
        {"reference": ""},
        {"reference": "\0 \r\n"},
        {"at": "2026-11-28T18:39:00"},
        {"at": "0001-01-01T00:00:00+14:00"},
        {"at": "9999-12-31T23:59:59-14:00"},
        {"at": 1},
        {"reason": "asleep"},
        {"recipient": 1},
    ],
)
def test_a_signed_body_that_is_wrong_is_refused_as_a_whole(fields: dict[str, object]) -> None:
    assert verified(a_document(), a_document(**fields)) is ReceiptRefusal.BODY


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_a_signed_body_that_is_no_document_is_refused(body: bytes) -> None:
    verifier = SignedReceiptVerifier(SECRET_BYTES)
    assert verifier.verify(body, headers_of(body), NOW) is ReceiptRefusal.BODY


def test_a_request_has_a_thousand_receipts_at_most() -> None:
    assert len(verified(*[a_document()] * MAX_RECEIPTS)) == MAX_RECEIPTS
    assert verified(*[a_document()] * (MAX_RECEIPTS + 1)) is ReceiptRefusal.TOO_MANY


def test_the_signature_is_checked_before_the_body_is_read() -> None:
    verifier = SignedReceiptVerifier(SECRET_BYTES)
    assert verifier.verify(b"no JSON", headers_of(b"other"), NOW) is ReceiptRefusal.SIGNATURE


class Matching:
    """A store whose steps and errors a test chooses; `poison` is rejected until it is put off."""

    def __init__(self, *steps: ReceiptPass | Exception, has_poison: bool = False) -> None:
        self.steps = list(steps)
        self.limits: list[int] = []
        self.has_poison = has_poison

    async def match(self, limit: int) -> ReceiptPass:
        self.limits.append(limit)
        if self.has_poison:
            raise StoreRejected("a value")
        step = self.steps.pop(0) if self.steps else ReceiptPass(0, (), ())
        if isinstance(step, Exception):
            raise step
        return step

    async def put_off(self) -> None:
        self.has_poison = False


def ended(*results: ReceiptResult) -> list[MatchedReceipt]:
    return [MatchedReceipt("sms", ReceiptEvent.DELIVERED, result) for result in results]


async def test_the_matcher_goes_on_while_a_step_is_full() -> None:
    store, observer = (
        Matching(
            ReceiptPass(MAX_MATCHED, ended(ReceiptResult.MATCHED, ReceiptResult.LATE), ()),
            ReceiptPass(3, ended(ReceiptResult.UNMATCHED), ()),
        ),
        MemoryReceipts(),
    )
    assert await ReceiptMatcher(store=store, observer=observer).run_once() == 3
    assert store.limits == [MAX_MATCHED] * 2
    assert observer.ended == {("sms", result): 1 for result in ReceiptResult}


async def test_the_matcher_ends_a_pass_at_some_time() -> None:
    store = Matching(*[ReceiptPass(MAX_MATCHED, (), ())] * (MAX_STEPS + 5))
    await ReceiptMatcher(store=store, observer=MemoryReceipts()).run_once()
    assert len(store.limits) == MAX_STEPS


async def test_a_failure_of_the_store_ends_the_pass_and_not_the_matcher() -> None:
    store = Matching(StoreUnavailable("away"), ReceiptPass(1, ended(ReceiptResult.MATCHED), ()))
    matcher = ReceiptMatcher(store=store, observer=MemoryReceipts())
    assert [await matcher.run_once(), await matcher.run_once()] == [0, 1]


async def test_one_receipt_that_postgres_rejects_holds_up_no_others() -> None:
    store = Matching(ReceiptPass(1, ended(ReceiptResult.MATCHED), ()), has_poison=True)
    assert await ReceiptMatcher(store=store, observer=MemoryReceipts()).run_once() == 1
    assert store.limits[:3] == [MAX_MATCHED, 1, 1]
    assert not store.has_poison


def test_a_signature_covers_the_id_the_time_and_the_body() -> None:
    at = int(NOW.timestamp())
    signed = b"msg_1." + str(at).encode() + b"." + BODY
    expected = b64encode(hmac_digest(SECRET_BYTES, signed, sha256)).decode()
    assert headers_of()["webhook-signature"] == f"v1,{expected}"
