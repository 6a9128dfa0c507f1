"""User tokens, ids of users, and the provider that writes into inboxes."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.providers.inbox import InboxProvider, InboxSettings, SandboxWithInbox
from notifier.adapters.providers.registry import check_provider, check_settings
from notifier.adapters.providers.sandbox_in_worker import SandboxInWorker
from notifier.api.auth.user_tokens import UserTokens
from notifier.api.http.stream_slots import StreamSlots
from notifier.api.http.user_paths import UserPaths, decoded_user
from notifier.app.dev import settings_of_dev
from notifier.app.dev_file import DevFile
from notifier.app.providers import provider_settings
from notifier.domain.credentials import Mode
from notifier.domain.errors import Overloaded, StoreRejected, StoreUnavailable
from notifier.domain.finding import CheckStatus
from notifier.domain.inbox import MAX_ENTRY_BYTES, TOKEN_PREFIX, Inbox, UserToken, is_user_id
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Accepted, Refused, Unavailable
from notifier.domain.signing import Purpose, Signer
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.inbox import NewEntry
from notifier.ports.provider import Envelope
from notifier.settings import Settings
from notifier.settings.tree import ChannelSettings
from tests.builders import new_id
from tests.memory_inboxes import SECRET, FixedSecret

ADA = Inbox(DEFAULT_TENANT, Mode.LIVE, "ada")
OLD, NEW = b"o" * 32, b"n" * 32
USERS = st.text(min_size=1, max_size=128).filter(is_user_id)


class SetClock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@given(USERS, st.sampled_from(Mode), st.sampled_from(["", "shop"]))
async def test_a_token_is_for_exactly_one_inbox(user: str, mode: Mode, tenant: str) -> None:
    inbox = Inbox(TenantId(tenant), mode, user)
    tokens = UserTokens(FixedSecret())
    text, made = await tokens.make(inbox, 60)
    read = await tokens.read(text)
    assert read is not None
    assert (read, read.inbox) == (made, inbox)
    assert text.isascii()
    assert "/" not in text


async def test_a_token_ends_at_its_time() -> None:
    clock = SetClock()
    tokens = UserTokens(FixedSecret(), clock=clock)
    text, made = await tokens.make(ADA, 60)
    clock.now += 59
    assert await tokens.read(text) == made
    assert tokens.holds(made)
    clock.now += 1
    assert await tokens.read(text) is None
    assert not tokens.holds(made)


async def test_a_token_with_one_other_character_is_none() -> None:
    tokens = UserTokens(FixedSecret())
    text, made = await tokens.make(ADA, 60)
    for at in range(len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert await tokens.read(changed) is None, at
    assert await tokens.read(text) == made


async def test_what_was_signed_for_another_purpose_or_by_another_is_none() -> None:
    payload = UserToken(inbox=ADA, expires_at=2**40).payload()
    tokens = UserTokens(FixedSecret())
    good = Signer([SECRET]).sign(Purpose.INBOX, payload)
    assert await tokens.read(TOKEN_PREFIX + good) is not None
    assert await tokens.read(good) is None
    for purpose in set(Purpose) - {Purpose.INBOX}:
        other = Signer([SECRET]).sign(purpose, payload)
        assert await tokens.read(TOKEN_PREFIX + other) is None
    assert await tokens.read(TOKEN_PREFIX + Signer([OLD]).sign(Purpose.INBOX, payload)) is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'[2,"default","live","ada",9999999999]',
        b'[1,"default","dead","ada",9999999999]',
        b'[1,"Not A Name","live","ada",9999999999]',
        b'[1,"default","live","ada","soon"]',
        b"\xff",
    ],
)
async def test_a_signed_payload_of_another_version_is_none(document: bytes) -> None:
    payload = urlsafe_b64encode(document).decode().rstrip("=")
    signed = Signer([SECRET]).sign(Purpose.INBOX, payload)
    assert await UserTokens(FixedSecret()).read(TOKEN_PREFIX + signed) is None


@given(st.text(max_size=200))
async def test_any_text_is_read_without_an_error(text: str) -> None:
    assert await UserTokens(FixedSecret()).read(TOKEN_PREFIX + text) is None


async def test_a_token_outlives_a_rotation_of_the_secret() -> None:
    text, made = await UserTokens(FixedSecret(), secrets=[OLD]).make(ADA, 60)
    assert await UserTokens(FixedSecret(), secrets=[NEW, OLD]).read(text) == made
    assert await UserTokens(FixedSecret(), secrets=[NEW]).read(text) is None
    before, made = await UserTokens(FixedSecret()).make(ADA, 60)
    assert await UserTokens(FixedSecret(), secrets=[NEW]).read(before) == made


@pytest.mark.parametrize("user", ["a", "ada@example.com", "a/b", "änne", "用户", "...", "x" * 128])
def test_an_id_of_a_user_may_be_any_printable_text(user: str) -> None:
    assert is_user_id(user)


@pytest.mark.parametrize(
    "user", ["", ".", "..", "a b", " a", "a\n", "a\0", "a\u2028b", "\ud800", "x" * 129, "a\u00a0b"]
)
def test_other_texts_are_no_ids_of_users(user: str) -> None:
    assert not is_user_id(user)


@pytest.mark.parametrize(
    ("raw", "path", "user"),
    [
        (b"/v1/inbox/ada", "/v1/inbox/ada", "ada"),
        (b"/v1/inbox/a%2Fread", "/v1/inbox/a%2Fread", "a/read"),
        (b"/v1/inbox/a%2fread/read", "/v1/inbox/a%2Fread/read", "a/read"),
        (b"/v1/inbox/%C3%A4/events", "/v1/inbox/%C3%A4/events", "ä"),
        (b"/v1/inbox/a%2525", "/v1/inbox/a%2525", "a%25"),
        (b"/v1/inbox/a%40b.c/token", "/v1/inbox/a%40b.c/token", "a@b.c"),
        (b"/v1/inbox/%FF", "/v1/inbox/%FF", None),
        (b"/v1/inbox//read", "/v1/inbox", ""),
        (b"/v1/%69nbox/ada", "/v1/%69nbox/ada", ""),
    ],
)
async def test_the_user_of_a_path_is_decoded_once(raw: bytes, path: str, user: str | None) -> None:
    seen: list[str] = []

    async def app(scope: object, _receive: object, _send: object) -> None:
        seen.append(scope["path"])  # type: ignore[index]

    scope = {"path": "/v1/inbox/whatever", "raw_path": raw}
    await UserPaths(app)(scope, None, None)  # type: ignore[arg-type]
    assert seen == [path]
    if user != "":
        assert decoded_user(path.removeprefix("/v1/inbox/").partition("/")[0]) == user


def test_streams_are_limited_together_and_per_holder() -> None:
    slots = StreamSlots(3)
    with slots.held("a", 2), slots.held("a", 2):
        with pytest.raises(Overloaded), slots.held("a", 2):
            pass
        with slots.held("b", 2), pytest.raises(Overloaded), slots.held("c", 2):
            pass
        with slots.held("c", 2):
            pass


class Writer:
    """Implements ports.inbox.InboxWriter."""

    def __init__(self, error: Exception | None = None) -> None:
        self.added: list[NewEntry] = []
        self._error = error

    async def add(self, entry: NewEntry) -> None:
        if self._error is not None:
            raise self._error
        self.added.append(entry)


class Stuck:
    """Implements ports.inbox.InboxWriter: Postgres does not answer."""

    async def add(self, _: NewEntry) -> None:
        await asyncio.Event().wait()


def envelope(recipient: str = "ada", **content: object) -> Envelope:
    return Envelope(
        id=new_id(),
        claim=1,
        queue=QueueKey.parse("inbox.high"),
        recipient=recipient,
        content=content,
    )


async def test_a_notification_becomes_an_entry() -> None:
    writer = Writer()
    sent = envelope(subject="Order", body="It left", data={"order": 17}, time_zone="Europe/Berlin")
    outcome = await InboxProvider("inbox", writer, 1.0).send(sent)
    assert outcome == Accepted(reference=str(sent.id))
    assert writer.added == [NewEntry(sent.id, "Order", "It left", '{"order":17}')]


@pytest.mark.parametrize("content", [{}, {"body": ""}, {"subject": "a"}, {"body": 7}])
async def test_without_a_body_there_is_no_entry(content: dict[str, Any]) -> None:
    writer = Writer()
    outcome = await InboxProvider("inbox", writer, 1.0).send(envelope(**content))
    assert isinstance(outcome, Refused)
    assert not writer.added


async def test_an_entry_has_a_largest_size_in_bytes() -> None:
    writer = Writer()
    provider = InboxProvider("inbox", writer, 1.0)
    assert isinstance(await provider.send(envelope(body="ä" * (MAX_ENTRY_BYTES // 2))), Accepted)
    outcome = await provider.send(envelope(body="ä" * (MAX_ENTRY_BYTES // 2), subject="a"))
    assert isinstance(outcome, Refused)
    assert len(writer.added) == 1


async def test_what_postgres_does_not_store_is_tried_again_and_what_it_rejects_is_not() -> None:
    for error, outcome in ((StoreUnavailable("x"), Unavailable), (StoreRejected("x"), Refused)):
        sent = await InboxProvider("inbox", Writer(error), 1.0).send(envelope(body="b"))
        assert isinstance(sent, outcome)
    sent = await InboxProvider("inbox", Stuck(), 0.01).send(envelope(body="b"))
    assert isinstance(sent, Unavailable)


async def test_what_the_sandbox_accepts_of_tests_goes_to_the_writer_and_else_nothing() -> None:
    writer = Writer()
    provider = SandboxWithInbox(SandboxInWorker("t", 1.0), InboxProvider("inbox", writer, 1.0))
    assert isinstance(await provider.send(envelope("fate-refuse-1", body="b")), Refused)
    assert isinstance(await provider.send(envelope(html="<p>")), Accepted)
    assert isinstance(await provider.send(envelope(body="b" * MAX_ENTRY_BYTES + "b")), Accepted)
    assert writer.added == []
    sent = envelope(body="b")
    assert await provider.send(sent) == Accepted(reference=f"test-{sent.id}")
    assert [entry.id for entry in writer.added] == [sent.id]


SETTINGS = Settings(
    channels={
        "inbox": ChannelSettings(address="user", provider="mine"),
        "email": ChannelSettings(address="email", provider="smtp"),
    },
    providers={"mine": {"type": "inbox", "keep_days": 7}, "smtp": {"type": "smtp", "host": "h"}},
)


async def test_the_provider_needs_no_address() -> None:
    settings = provider_settings(SETTINGS)["mine"]
    assert settings == InboxSettings(keep_days=7)
    await check_settings("mine", settings)
    assert (await check_provider("mine", settings)).status is CheckStatus.OK


def test_the_inbox_of_dev_is_the_real_one() -> None:
    dev = DevFile(
        pid=1, database_url="", broker_url="", sandbox_url="http://127.0.0.1:1", smtp_port=1
    )
    settings, providers = settings_of_dev(SETTINGS, dev)
    assert settings.channels["inbox"].provider == "mine"
    assert providers["mine"] == InboxSettings(keep_days=7)
