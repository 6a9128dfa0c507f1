from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from notifier.api.suppressions.csv_rows import MAX_ROWS, read_rows
from notifier.api.suppressions.documents import SuppressionRequest
from notifier.delivery.suppression_check import CHECK_INTERVAL_S, SuppressionCheck
from notifier.delivery.unsubscribe_links import UnsubscribeLinks
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification, StoreUnavailable
from notifier.domain.features import SUPPRESSED_COPIES
from notifier.domain.lookups import LookupScope
from notifier.domain.notification import EndReason, NotificationId, Status
from notifier.domain.suppressions import (
    SuppressedOn,
    SuppressionReason,
    SuppressionScope,
    suppression_of,
)
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.domain.unsubscribing import Unsubscribe
from notifier.lifecycle import repeat
from notifier.ports.suppressions import UNKNOWN_FOR_S, Recipient
from tests.builders import SMS_HIGH, a_notification

LIVE = LookupScope("", "live")
ADA = Recipient(LIVE, "ada@example.com")
ALL, NEWS = SuppressedOn("email", "", "bounce"), SuppressedOn("email", "news", "unsubscribe")


class FixedSuppressions:
    """Implements SuppressionReader, RecipientHashes and SigningSecret, and counts the questions."""

    def __init__(self, stored: Mapping[Recipient, Sequence[SuppressedOn]] | None = None) -> None:
        self.stored = stored or {}
        self.asked: list[set[Recipient]] = []
        self.is_away = False
        self.secret = b"s" * 32

    async def has_suppressions(self) -> bool:
        if self.is_away:
            raise StoreUnavailable("away")
        return bool(self.stored)

    async def suppressed(
        self, recipients: Collection[Recipient]
    ) -> Mapping[Recipient, Sequence[SuppressedOn]]:
        self.asked.append(set(recipients))
        return {each: self.stored[each] for each in recipients if each in self.stored}

    async def recipient_hashes(self, recipients: Collection[Recipient]) -> Mapping[Recipient, UUID]:
        return {each: UUID(int=len(each.recipient)) for each in recipients}

    async def signing_secret(self) -> bytes:
        return self.secret


def test_every_reason_of_a_suppression_is_a_reason_of_an_end() -> None:
    assert set(map(str, SuppressionReason)) <= set(map(str, EndReason))


def test_a_suppression_covers_its_channel_and_topic_only() -> None:
    assert suppression_of([NEWS, ALL], "email", "news") == ALL
    assert suppression_of([NEWS], "email", "news") == NEWS
    assert suppression_of([NEWS], "email", None) is None
    assert suppression_of([NEWS], "email", "offers") is None
    assert suppression_of([ALL], "email", None) == ALL
    assert suppression_of([ALL], "sms", None) is None


async def test_without_any_suppression_no_submit_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FixedSuppressions()
    check = SuppressionCheck(store)
    items = [a_notification()]
    assert await check.apply(items) == items
    assert len(store.asked) == 1  # nothing is known yet
    await check.run_once()
    assert await check.apply(items) is items
    assert len(store.asked) == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + UNKNOWN_FOR_S + 1)
    assert await check.apply(items) == items
    assert len(store.asked) == 2


async def test_what_was_known_is_forgotten_while_the_store_is_away() -> None:
    store = FixedSuppressions({ADA: [ALL]})
    check = SuppressionCheck(store)
    store.is_away = True
    await check.run_once()
    (item,) = await check.apply([a_notification(recipient="Ada@EXAMPLE.com")])
    assert (item.status, item.suppressed) == (Status.SUPPRESSED, "bounce")


async def test_the_watch_ends_with_the_process() -> None:
    stop = asyncio.Event()
    stop.set()
    await repeat(SuppressionCheck(FixedSuppressions()), stop, CHECK_INTERVAL_S)


async def test_only_recipients_of_the_channel_are_marked() -> None:
    store = FixedSuppressions({ADA: [ALL]})
    check = SuppressionCheck(store)
    mail, other = a_notification(recipient=ADA.recipient), a_notification()
    text = a_notification(SMS_HIGH, recipient="+15005550006")
    checked = await check.apply([mail, other, text])
    assert [item.suppressed for item in checked] == ["bounce", None, None]
    assert [item.id for item in checked] == [mail.id, other.id, text.id]
    assert store.asked == [{ADA, Recipient(LIVE, other.recipient), Recipient(LIVE, text.recipient)}]


async def test_suppressed_copies_are_left_out_and_named() -> None:
    content = {
        "subject": "Hello",
        "cc": ["Ada <Ada@example.com>", "Bob <bob@example.com>"],
        "bcc": ["ada@example.com"],
    }
    item = replace(a_notification(content=json.dumps(content).encode()), has_copies=True)
    unchanged = replace(a_notification(content=json.dumps(content).encode()), has_copies=False)
    checked, other = await SuppressionCheck(FixedSuppressions({ADA: [ALL]})).apply(
        [item, unchanged]
    )
    assert json.loads(checked.content) == {
        "subject": "Hello",
        "cc": ["Bob <bob@example.com>"],
        "bcc": [],
        SUPPRESSED_COPIES: ["ada@example.com", "ada@example.com"],
    }
    assert (checked.status, other) == (Status.QUEUED, unchanged)


def links(store: FixedSuppressions, secrets: Sequence[bytes] = ()) -> UnsubscribeLinks:
    return UnsubscribeLinks(
        hashes=store,
        secret=store,
        secrets=secrets,
        public_url="https://notify.example.com/n/",
        channels=["email"],
    )


async def token_of(made_by: UnsubscribeLinks, **changes: object) -> str:
    item = replace(a_notification(), topic="news", **changes)
    (mail,) = await made_by.apply([item])
    link: str = json.loads(mail.content)["headers"]["List-Unsubscribe"]
    return link.removeprefix("<https://notify.example.com/n/v1/unsubscribe/").removesuffix(">")


async def test_an_email_with_a_topic_gets_both_headers_in_place_of_the_callers() -> None:
    content = {"subject": "x", "headers": {"X-Order": "1", "list-unsubscribe": "<mailto:a@b>"}}
    item = replace(a_notification(content=json.dumps(content).encode()), topic="news")
    (mail,) = await links(FixedSuppressions()).apply([item])
    headers = json.loads(mail.content)["headers"]
    assert list(headers) == ["X-Order", "List-Unsubscribe", "List-Unsubscribe-Post"]
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert len(f"List-Unsubscribe: {headers['List-Unsubscribe']}") < 998


async def test_a_whole_mail_with_a_topic_gets_both_headers_too() -> None:
    content = json.dumps({"mime": "sha256:" + "0" * 64}).encode()
    (mail,) = await links(FixedSuppressions()).apply(
        [replace(a_notification(content=content), topic="news")]
    )
    assert list(json.loads(mail.content)["headers"]) == [
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
    ]


async def test_other_notifications_stay_as_they_are() -> None:
    items = [
        a_notification(),
        replace(a_notification(SMS_HIGH), topic="news"),
        replace(a_notification(), topic="news", suppressed="bounce"),
    ]
    assert await links(FixedSuppressions()).apply(items) is items


async def test_a_token_says_what_was_signed_and_names_no_recipient() -> None:
    made_by = links(FixedSuppressions())
    token = await token_of(made_by, recipient="ada@example.com")
    wish = await made_by.read(token)
    assert wish is not None
    assert (wish.channel, wish.topic, wish.scope) == (
        "email",
        "news",
        SuppressionScope(DEFAULT_TENANT, Mode.LIVE),
    )
    assert "ada" not in token


async def test_an_altered_token_and_one_of_another_deployment_say_nothing() -> None:
    made_by = links(FixedSuppressions())
    token = await token_of(made_by)
    other = FixedSuppressions()
    other.secret = b"o" * 32
    assert await links(other).read(token) is None
    for text in (
        "",
        ".",
        "x" * 600,
        "é" + token,
        token[:-1],
        token + "A",
        token.replace(".news.", ".offers."),
        token.replace("1.default.", "1.shop."),
        token.rpartition(".")[0],
    ):
        assert await made_by.read(text) is None, text
    for number, character in enumerate(token):
        altered = token[:number] + ("A" if character != "A" else "B") + token[number + 1 :]
        assert altered == token or await made_by.read(altered) is None, number


async def test_a_token_stays_valid_when_the_secrets_rotate() -> None:
    store = FixedSuppressions()
    old = await token_of(links(store))
    new = await token_of(links(store, [b"n" * 32]))
    rotated = links(store, [b"m" * 32, b"n" * 32])
    assert await rotated.read(old) is not None
    assert await rotated.read(new) is not None
    assert await links(store).read(new) is None


@pytest.mark.parametrize(
    "payload",
    ["", "2.default.live.email.news.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA", "1.a.b"],
)
def test_a_payload_of_another_version_is_an_error(payload: str) -> None:
    with pytest.raises(ValueError, match="version 1"):
        Unsubscribe.parse(payload)


def test_a_payload_is_read_as_it_was_written() -> None:
    wish = Unsubscribe(
        scope=SuppressionScope(TenantId("shop"), Mode.TEST),
        channel="email",
        topic="news",
        recipient=uuid4(),
        notification=NotificationId(uuid4()),
    )
    assert Unsubscribe.parse(wish.payload()) == wish


HEAD = b"channel,recipient,reason\n"


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"email,ada@example.com,bounce\n",
        b"\xef\xbb\xbf" + HEAD + b"email,ada@example.com,bounce",
        b"channel,recipient,reason\r\nemail,ada@example.com,bounce\r\n\r\n",
        b'"channel","recipient","reason"\n"email","ada@example.com","bounce"\n,,\n',
        b" Recipient ,CHANNEL,reason\nada@example.com , email,bounce\n",
    ],
)
def test_csv_is_read_as_programs_write_it(body: bytes) -> None:
    expected = SuppressionRequest(channel="email", recipient="ada@example.com", reason="bounce")
    assert [row.request for row in read_rows(body)] == [expected]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00c",
        b"channel,recipient\nemail,a\0b\n",
        b"channel;recipient\nemail;ada@example.com\n",
        b"channel,recipient,colour\n",
        b"channel,channel,recipient\n",
        b"recipient\nada@example.com\n",
        b'channel,recipient\nemail,"ada\n',
        b'channel,recipient\nemail,"a"b\n',
        b"PK\x03\x04\x14\x00\x06\x00",
        HEAD + b"email,ada@example.com,bounce\n" * (MAX_ROWS + 1),
        b"channel,recipient\nemail," + b"x" * 200_000 + b"\n",
    ],
    ids=range(12),
)
def test_a_file_that_is_none_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(InvalidNotification) as caught:
        list(read_rows(body))
    assert caught.value.field == "$"


def test_a_wrong_row_is_named_by_its_line_and_field() -> None:
    body = HEAD + b'email,"ada\n@example.com",bounce\nemail,ada@example.com,bored\nemail,x\n'
    rows = list(read_rows(body))
    assert [row.line for row in rows] == [3, 4, 5]
    assert isinstance(rows[0].request, SuppressionRequest)
    fields = [row.request.field for row in rows if isinstance(row.request, InvalidNotification)]
    assert fields == ["reason", "$"]


def test_a_file_may_have_all_rows_that_a_call_takes() -> None:
    assert len(list(read_rows(HEAD + b"email,ada@example.com,bounce\n" * MAX_ROWS))) == MAX_ROWS
