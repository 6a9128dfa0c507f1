"""Webhooks without any server: addresses, signatures, limits, and what answers mean."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import msgspec
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from notifier.api.rules import WebhookRules
from notifier.api.webhooks.checking import checked_events, checked_url
from notifier.delivery.webhook_sender import TARGET_KEPT_S, WebhookSender
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification, StoreUnavailable
from notifier.domain.events import Event, EventType
from notifier.domain.notification import NotificationId
from notifier.domain.outcome import Accepted, Outcome, Refused, Unavailable
from notifier.domain.public_addresses import may_be_called, parse_address, parse_networks
from notifier.domain.retry import AmbiguityRule, Fail, ListedDelays, Retry, Spent, decide
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.domain.webhook_calls import (
    MAX_PARKED_S,
    MAX_REST_S,
    MIN_PARKED_S,
    CallLimits,
    Trust,
)
from notifier.domain.webhooks import (
    WEBHOOK_QUEUE,
    DisabledReason,
    Webhook,
    WebhookScope,
    WebhookStatus,
    WebhookTarget,
    allowed_types,
    call_id,
    call_of,
    new_secret,
    shown_secret,
    signatures,
)
from notifier.ports.provider import Envelope
from notifier.ports.webhooks import Answered, CallSummary, Disabled, Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
LIVE = WebhookScope(DEFAULT_TENANT, Mode.LIVE)
URL = "https://shop.example.com/hooks"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::8.8.8.8",
        "::ffff:8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:0:8.8.8.8",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:808:808::1",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public_is_refused_unless_its_network_is_allowed(
    address: str,
) -> None:
    parsed = parse_address(address)
    assert parsed is not None
    assert not may_be_called(parsed, ())
    assert may_be_called(parsed, parse_networks([str(parsed)]))
    assert not may_be_called(parsed, parse_networks(["203.0.113.0/24", "2600::/12"]))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00::1"])
def test_a_public_address_may_be_called(address: str) -> None:
    assert may_be_called(ip_address(address), ())


def test_a_text_that_is_no_address_has_none() -> None:
    assert parse_address("[::1]") == ip_address("::1")
    assert [parse_address(text) for text in ("localhost", "127.1", "0x7f000001", "")] == [None] * 4


def test_every_secret_signs_and_the_library_of_receivers_verifies_it() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    body = '{"type":"webhook.test","note":"ä"}'
    at = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg",
        "webhook-timestamp": str(at),
        "webhook-signature": signatures([new, old], "msg", at, body.encode()),
    }
    for secret in (old, new):
        verified = Verifier(shown_secret(secret)).verify(body, headers)
        assert verified["type"] == "webhook.test"
    for secret, text in ((other, body), (new, body + " ")):
        with pytest.raises(WebhookVerificationError):
            Verifier(shown_secret(secret)).verify(text, headers)
    assert len({old, new, other}) == 3


def test_the_retries_have_the_listed_delays_and_then_end() -> None:
    delays = ListedDelays((5.0, 300.0, 1800.0))
    assert delays.tries == 4
    assert delays.longest == timedelta(seconds=2105 * 1.2)
    assert [delays.delay(spent, 0.5).total_seconds() for spent in (1, 2, 3)] == [5, 300, 1800]
    assert delays.delay(1, 0.0) == timedelta(seconds=4)
    assert delays.delay(1, 1.0) == timedelta(seconds=6)

    def decided(tries: int, outcome: Outcome) -> Retry | Fail | object:
        return decide(
            outcome,
            spent=Spent(tries=tries),
            max_tries=None,
            policy=delays,
            ambiguity=AmbiguityRule(),
            draw=0.5,
        )

    down = Unavailable(code="500")
    assert decided(0, down) == Retry(timedelta(seconds=5), spends=True)
    assert decided(2, down) == Retry(timedelta(seconds=1800), spends=True)
    assert decided(3, down) == Fail("exhausted")
    later = Unavailable(code="503", after=timedelta(seconds=60))
    assert decided(0, later) == Retry(timedelta(seconds=60), spends=True)


def webhook(**changes: object) -> Webhook:
    fields: dict[str, object] = {
        "id": uuid4(),
        "scope": LIVE,
        "url": URL,
        "events": ("notification.*",),
        "status": WebhookStatus.ENABLED,
        "reason": None,
        "note": "",
        "created_at": NOW,
        **changes,
    }
    return msgspec.convert(fields, Webhook, strict=False)


def event(type_: str = EventType.SENT, **changes: object) -> Event:
    later = NOW + timedelta(seconds=1)
    made = Event(
        id=uuid4(), type=type_, at=later, tenant=DEFAULT_TENANT, mode=Mode.LIVE, document=b"{}"
    )
    return msgspec.structs.replace(made, **changes)


def test_a_webhook_wants_its_own_events_from_after_it_was_made() -> None:
    hook = webhook()
    assert hook.wants(event())
    assert hook.wants(event(EventType.FAILED, mode=None))
    assert not hook.wants(event(EventType.RETRYING))
    assert webhook(events=("notification.retrying",)).wants(event(EventType.RETRYING))
    assert not hook.wants(event(EventType.SUPPRESSION_CREATED))
    assert not hook.wants(event(at=NOW))
    assert not hook.wants(event(tenant=TenantId("shop")))
    assert not hook.wants(event(tenant=None))
    assert not hook.wants(event(mode=Mode.TEST))
    assert not webhook(status=WebhookStatus.DISABLED).wants(event())
    of_deployment = webhook(
        scope=WebhookScope(None, Mode.LIVE), events=("breaker.opened", "notification.*")
    )
    assert of_deployment.wants(event(EventType.BREAKER_OPENED, tenant=None))
    assert not of_deployment.wants(event())


def test_the_id_of_a_call_follows_from_event_and_webhook() -> None:
    one, two = uuid4(), uuid4()
    ids = {call_id(e, w, NOW) for e in (one, two) for w in (one, two)}
    assert len(ids) == 4
    assert call_id(one, two, NOW) in ids
    assert {id_.version for id_ in ids} == {7}
    assert {id_.int >> 80 for id_ in ids} == {int(NOW.timestamp() * 1000)}


def test_a_call_is_a_notification_whose_recipient_is_the_webhook() -> None:
    id_ = uuid4()
    call = call_of(id_, LIVE, NotificationId(uuid4()), b'{"id":"e"}', timedelta(days=1))
    assert (call.queue, call.recipient, call.mode) == (WEBHOOK_QUEUE, str(id_), Mode.LIVE)
    assert call.content == b'{"event":{"id":"e"}}'
    assert not call.is_counted
    test = call_of(
        id_, WebhookScope(None, Mode.TEST), NotificationId(uuid4()), b"{}", timedelta(days=1)
    )
    assert (test.mode, test.tenant, test.channel) == (Mode.TEST, "*", "webhook")


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example.com/",
        "ftp://shop.example.com/",
        "https://",
        "https://ada@shop.example.com/",
        "https://shop.example.com/#a",
        "https://shop.example.com:0/",
        "https://shop.example.com:99999/",
        "https://shop.example.com\\@127.0.0.1/",
        "https://shop.example.com/ä",
        "https://shop.example.com/a b",
        'https://shop.example.com/"a',
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://169.254.169.254/latest",
        "file:///etc/passwd",
        "shop.example.com",
        "",
    ],
)
def test_a_url_that_may_not_be_called_is_refused(url: str) -> None:
    with pytest.raises(InvalidNotification):
        checked_url(url, WebhookRules())


def test_a_url_that_may_be_called_is_kept_as_it_is() -> None:
    assert checked_url(f"{URL}?token=a%20b", WebhookRules()) == f"{URL}?token=a%20b"
    local = WebhookRules(allow_http=True, allow_private=("127.0.0.0/8",))
    assert checked_url("http://127.0.0.1:8080/x", local) == "http://127.0.0.1:8080/x"
    with pytest.raises(InvalidNotification):
        checked_url("http://10.0.0.1/", local)


def test_types_of_events_are_those_of_the_scope() -> None:
    assert checked_events(["notification.*", "notification.*"], LIVE) == ["notification.*"]
    assert "webhook.test" not in allowed_types(LIVE)
    for names, scope in (
        (["notification.sended"], LIVE),
        (["breaker.opened"], LIVE),
        (["webhook.test"], LIVE),
        (["notification.sent"], WebhookScope(None, Mode.LIVE)),
        (["breaker.opened"], WebhookScope(None, Mode.TEST)),
    ):
        with pytest.raises(InvalidNotification):
            checked_events(names, scope)


class Limited:
    """Limits of a worker with 16 calls, at an instant that a test moves."""

    def __init__(self, most: int = 16) -> None:
        self.limits = CallLimits(per_endpoint=4, most=most)
        self.now = 100.0

    def call(self, webhook: UUID) -> float | Trust:
        """Begin a call; returns what `begin` says, or for how long it is parked."""
        parked_s = self.limits.parking_s(webhook, self.now, 0.5)
        return self.limits.begin(webhook) if parked_s is None else parked_s

    def parked_s(self, webhook: UUID) -> float:
        """Try to begin a call that is parked; returns for how long."""
        parked = self.call(webhook)
        assert isinstance(parked, float)
        return parked

    def succeed(self, webhook: UUID, counted_as: Trust = Trust.PROMPT, call_s: float = 0.2) -> None:
        self.limits.succeeded(webhook, call_s)
        self.limits.end(webhook, counted_as)

    def fail(self, webhook: UUID, counted_as: Trust, after_s: float = 0.0) -> None:
        started_at, self.now = self.now, self.now + after_s
        self.limits.failed(webhook, started_at, self.now)
        self.limits.end(webhook, counted_as)


PROMPT, UNCERTAIN, FAILING = Trust


def test_a_webhook_has_one_call_until_one_succeeds_and_then_four() -> None:
    limited, hook = Limited(), uuid4()
    assert limited.call(hook) is UNCERTAIN
    assert limited.parked_s(hook) >= MIN_PARKED_S
    limited.succeed(hook, UNCERTAIN)
    assert [limited.call(hook) for _ in range(4)] == [PROMPT] * 4
    assert limited.parked_s(hook) >= MIN_PARKED_S
    limited.succeed(hook)
    assert limited.call(hook) is PROMPT


def test_webhooks_that_have_not_succeeded_share_half_of_the_calls() -> None:
    limited = Limited()
    good, new = uuid4(), [uuid4() for _ in range(20)]
    assert limited.call(good) is UNCERTAIN
    limited.succeed(good, UNCERTAIN)
    assert [limited.call(hook) for hook in new].count(UNCERTAIN) == 8
    assert [limited.call(good) for _ in range(4)] == [PROMPT] * 4


def test_webhooks_that_fail_share_a_fifth_of_the_calls() -> None:
    limited = Limited()
    new, failing = uuid4(), [uuid4() for _ in range(8)]
    for hook in failing:
        assert limited.call(hook) is UNCERTAIN
        limited.fail(hook, UNCERTAIN)
    limited.now += 1.0
    assert [limited.call(hook) for hook in failing].count(FAILING) == 3
    assert limited.call(new) is UNCERTAIN


def test_webhooks_that_answer_slowly_share_half_of_the_calls_too() -> None:
    limited = Limited()
    good, slow = uuid4(), [uuid4() for _ in range(6)]
    for hook in (good, *slow):
        assert limited.call(hook) is UNCERTAIN
        limited.succeed(hook, UNCERTAIN, call_s=0.2 if hook == good else 14.0)
    assert [limited.call(hook) for hook in slow * 4].count(UNCERTAIN) == 8
    assert [limited.call(good) for _ in range(4)] == [PROMPT] * 4
    for _ in range(20):  # it is prompt again
        limited.limits.succeeded(slow[0], 0.1)
    limited.limits.end(slow[0], UNCERTAIN)
    assert limited.call(slow[0]) is PROMPT


def test_a_webhook_rests_longer_after_each_failure_and_not_after_a_success() -> None:
    limited, hook = Limited(), uuid4()
    rests = []
    for number in range(12):
        counted_as = limited.call(hook)
        assert counted_as is (FAILING if number else UNCERTAIN)
        limited.fail(hook, counted_as, after_s=15.0)
        rests.append(limited.limits._endpoints[hook].rest_until - limited.now)
        assert limited.parked_s(hook) >= min(rests[-1], MAX_PARKED_S / 2)
        limited.now += rests[-1]
    assert rests[:4] == [1, 2, 4, 8]
    assert rests[-1] == MAX_REST_S
    assert limited.call(hook) is FAILING
    limited.succeed(hook, FAILING)
    assert limited.call(hook) is PROMPT


def test_calls_that_fail_together_count_as_one_failure() -> None:
    limited, hook = Limited(), uuid4()
    assert limited.call(hook) is UNCERTAIN
    limited.succeed(hook, UNCERTAIN)
    assert [limited.call(hook) for _ in range(4)] == [PROMPT] * 4
    started_at = limited.now
    limited.now += 1
    for _ in range(4):
        limited.limits.failed(hook, started_at, limited.now)
        limited.limits.end(hook, PROMPT)
    assert limited.limits._endpoints[hook].rest_until == limited.now + 1


def test_what_is_parked_comes_back_about_as_fast_as_the_webhook_takes_it() -> None:
    limited, hook = Limited(), uuid4()
    assert limited.call(hook) is UNCERTAIN
    limited.succeed(hook, UNCERTAIN)
    for _ in range(4):
        limited.call(hook)
    parked = [limited.parked_s(hook) for _ in range(100)]
    assert parked == sorted(parked)
    per_s = 4 / limited.limits._endpoints[hook].call_s
    assert parked[-1] == pytest.approx(100 / per_s)
    most = [limited.parked_s(hook) for _ in range(100_000)]
    assert max(most) <= MAX_PARKED_S
    assert most[-1] >= MAX_PARKED_S / 2


def test_webhooks_that_rest_are_not_forgotten_when_there_are_many() -> None:
    limited, dead = Limited(), uuid4()
    assert limited.call(dead) is UNCERTAIN
    limited.fail(dead, UNCERTAIN)
    for _ in range(10_050):
        limited.limits.parking_s(uuid4(), limited.now, 0.5)
    assert dead in limited.limits._endpoints
    assert len(limited.limits._endpoints) <= 10_000


class Calls:
    """Implements CallStore, WebhookTransport and WebhookObserver; answers as a test says."""

    def __init__(self) -> None:
        self.targets: dict[UUID, WebhookTarget | StoreUnavailable] = {}
        self.reads = 0
        self.answer: Answered | Unanswered = Answered(204)
        self.posted: list[tuple[str, Mapping[str, str], bytes]] = []
        self.noted: list[Mapping[UUID, CallSummary]] = []
        self.fails_to_note = False
        self.ends: Sequence[Disabled] = ()
        self.gone: list[tuple[UUID, str]] = []
        self.observed: list[str] = []
        self.now = 50.0
        self.clock_during: list[float] = []

    async def target(self, id: UUID) -> WebhookTarget | None:  # noqa: A002 the port's name
        self.reads += 1
        found = self.targets.get(id)
        if isinstance(found, StoreUnavailable):
            raise found
        return found

    async def note_calls(
        self, summaries: Mapping[UUID, CallSummary], disable_after_s: float
    ) -> Sequence[Disabled]:
        assert disable_after_s == 60.0
        if self.fails_to_note:
            raise StoreUnavailable("away")
        self.noted.append(summaries)
        return self.ends

    async def disable_gone(self, id: UUID, url: str) -> bool:  # noqa: A002 the port's name
        self.gone.append((id, url))
        return True

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> Answered | Unanswered:
        self.posted.append((url, headers, body))
        self.now += 0.5
        return self.answer

    def clock(self) -> float:
        return self.now

    def webhook_calls_stored(self, count: int) -> None:
        raise AssertionError(count)

    def webhook_lag(self, seconds: float) -> None:
        raise AssertionError(seconds)

    def webhook_calls_expired(self, count: int) -> None:
        raise AssertionError(count)

    def webhook_disabled(self, reason: str) -> None:
        self.observed.append(reason)


HOOK = UUID("01a22375-b455-7605-a5d8-2a5c96469e10")


@pytest.fixture
def calls() -> Calls:
    made = Calls()
    made.targets[HOOK] = WebhookTarget(URL, [b"k" * 32])
    return made


@pytest.fixture
def sender(calls: Calls) -> WebhookSender:
    return WebhookSender(
        "webhook",
        store=calls,
        transport=calls,
        limits=CallLimits(per_endpoint=4, most=16),
        observer=calls,
        clock=calls.clock,
        wall_clock=lambda: datetime.now(UTC).timestamp(),
        random=random.Random(1),
        disable_after_s=60.0,
    )


def envelope(recipient: str = str(HOOK), **content: object) -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=WEBHOOK_QUEUE,
        recipient=recipient,
        content=content or {"event": {"id": "e1", "type": "webhook.test", "data": {"n": 1.0}}},
    )


async def test_a_call_is_signed_and_its_success_is_noted_once_a_second(
    calls: Calls, sender: WebhookSender
) -> None:
    assert await sender.send(envelope()) == Accepted(http_status=204)
    ((url, headers, body),) = calls.posted
    assert url == URL
    assert headers["webhook-id"] == "e1"
    verified = Verifier(shown_secret(b"k" * 32)).verify(body.decode(), dict(headers))
    assert verified == {"id": "e1", "type": "webhook.test", "data": {"n": 1.0}}
    await sender.run_once()
    assert calls.noted == [{HOOK: CallSummary(url=URL, succeeded_s=0.0)}]
    await sender.run_once()
    assert len(calls.noted) == 1


@pytest.mark.parametrize("status", [199, 301, 302, 400, 401, 404, 429, 500, 503])
async def test_any_answer_but_2xx_is_tried_again_and_counts_as_a_failure(
    calls: Calls, sender: WebhookSender, status: int
) -> None:
    calls.answer = Answered(status, retry_after_s=7.0)
    outcome = await sender.send(envelope())
    assert outcome == Unavailable(code=str(status), http_status=status, after=timedelta(seconds=7))
    calls.now += 1
    await sender.run_once()
    assert calls.noted == [{HOOK: CallSummary(url=URL, failed_s=1.0, failing_s=1.0)}]
    assert sender.parking_s(str(HOOK)) is None  # its rest of a second is over
    assert calls.observed == []


async def test_a_call_without_an_answer_says_why_and_nothing_of_the_address(
    calls: Calls, sender: WebhookSender
) -> None:
    calls.answer = Unanswered("address_refused", "its address is not public")
    outcome = await sender.send(envelope())
    assert outcome == Unavailable(code="address_refused", detail="its address is not public")
    assert (sender.parking_s(str(HOOK)) or 0) >= 1.0


async def test_410_disables_the_webhook_and_its_next_call_is_not_made(
    calls: Calls, sender: WebhookSender
) -> None:
    calls.answer = Answered(410)
    assert await sender.send(envelope()) == Refused(code="410", http_status=410)
    assert (calls.gone, calls.observed) == ([(HOOK, URL)], ["gone"])
    calls.targets[HOOK] = WebhookTarget(URL, [b"k"], is_enabled=False)
    assert await sender.send(envelope()) == Refused(code="webhook_disabled", is_local=True)
    assert len(calls.posted) == 1


async def test_a_deleted_webhook_and_a_store_that_is_away_make_no_call(
    calls: Calls, sender: WebhookSender
) -> None:
    unknown = str(uuid4())
    assert await sender.send(envelope(unknown)) == Refused(code="webhook_deleted", is_local=True)
    assert await sender.send(envelope("no id")) == Refused(code="no_event", is_local=True)
    assert await sender.send(envelope(event="x")) == Refused(code="no_event", is_local=True)
    calls.targets[HOOK] = StoreUnavailable("away")
    outcome = await sender.send(envelope())
    assert outcome == Unavailable(code="store_unavailable", detail="away", is_local=True)
    assert calls.posted == []
    await sender.run_once()
    assert calls.noted == []


async def test_a_changed_url_counts_after_a_second(calls: Calls, sender: WebhookSender) -> None:
    await sender.send(envelope())
    calls.targets[HOOK] = WebhookTarget("https://new.example.com/", [b"n"])
    calls.now += TARGET_KEPT_S
    await sender.send(envelope())
    assert [url for url, _, _ in calls.posted] == [URL, "https://new.example.com/"]
    await sender.run_once()
    assert calls.noted == [{HOOK: CallSummary(url="https://new.example.com/", succeeded_s=0.0)}]


async def test_results_that_could_not_be_noted_are_noted_later(
    calls: Calls, sender: WebhookSender
) -> None:
    calls.answer = Answered(500)
    await sender.send(envelope())
    calls.fails_to_note = True
    await sender.run_once()
    calls.fails_to_note, calls.ends = False, [Disabled(HOOK, DisabledReason.FAILING)]
    calls.now += 3
    await sender.run_once()
    assert calls.noted == [{HOOK: CallSummary(url=URL, failed_s=3.0, failing_s=3.0)}]
    assert calls.observed == ["failing"]
