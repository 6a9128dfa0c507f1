"""The sandbox over HTTP and SMTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiosmtplib import SMTP, SMTPRecipientRefused

from notifier.domain.errors import ConfigError
from notifier.domain.fates import (
    Fate,
    ResponseKind,
    fate_of_address,
    fate_of_phone,
    fate_of_token,
    response_kind,
)
from notifier.sandbox import Sandbox, open_sandbox
from notifier.sandbox.alerts import MAX_ALERTS, AlertLog
from notifier.sandbox.calls import Call, CallFilter, CallLog

SMS = "/2010-04-01/Accounts/AC1/Messages.json"
PUSH = "/v1/projects/p/messages:send"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox(http_port=0, smtp_port=0) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sandbox.http_url) as session:
        yield session


@pytest.fixture
async def smtp(sandbox: Sandbox) -> AsyncIterator[SMTP]:
    client = SMTP(
        hostname=sandbox.host, port=sandbox.smtp_port, local_hostname="t", start_tls=False
    )
    async with client:
        yield client


async def send_sms(http: aiohttp.ClientSession, to: str, **headers: str) -> tuple[int, Any]:
    request_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    form = {"To": to, "From": "+1", "Body": "hi"}
    async with http.post(SMS, data=form, headers=request_headers) as response:
        return response.status, await response.json()


async def calls(http: aiohttp.ClientSession, query: str = "") -> list[dict[str, Any]]:
    async with http.get(f"/calls{query}") as response:
        assert response.status == 200
        listed: list[dict[str, Any]] = await response.json()
        return listed


async def put_behaviour(http: aiohttp.ClientSession, body: object) -> tuple[int, Any]:
    async with http.put("/behaviour", data=json.dumps(body)) as response:
        return response.status, await response.json(content_type=None)


def add_calls(log: CallLog, count: int, start: datetime) -> None:
    for n in range(count):
        at = start + timedelta(milliseconds=n)
        channel = ("email", "sms", "push")[n % 3]
        log.add(Call(at, channel, f"a{n}@example.com", f"id-{n // 2}", 1, "ok", n % 5 > 0, 250))


@pytest.mark.parametrize(
    ("address", "fate"),
    [
        ("ann@example.com", Fate.OK),
        ("refuse@example.com", Fate.REFUSE),
        ("Flaky-2+17@example.com", Fate.FLAKY),
        ("throttle-2+a+b@example.com", Fate.THROTTLE),
        ("refused@example.com", Fate.OK),
        ("a+down@example.com", Fate.OK),
        ("hang", Fate.OK),
    ],
)
def test_the_fate_of_an_address_is_the_local_part_before_the_plus(address: str, fate: Fate) -> None:
    assert fate_of_address(address) is fate


@pytest.mark.parametrize(
    ("number", "fate"),
    [
        ("+15005550001", Fate.REFUSE),
        ("+15005550012", Fate.FLAKY),
        ("+15005550093", Fate.THROTTLE),
        ("+15005550004", Fate.DOWN),
        ("+15005550005", Fate.HANG),
        ("+15005550006", Fate.OK),
        ("+15005550007", Fate.CUT),
        ("+15005550008", Fate.DELIVERED),
        ("+15005550009", Fate.BOUNCED),
        ("+15005550000", Fate.OK),
        ("+15005551001", Fate.OK),
        ("+436641234561", Fate.OK),
    ],
)
def test_the_fate_of_a_phone_number_is_its_last_digit(number: str, fate: Fate) -> None:
    assert fate_of_phone(number) is fate


def test_the_fate_of_a_token_is_its_prefix() -> None:
    for fate in Fate:
        assert fate_of_token(f"fate-{fate}-abc") is fate
    assert fate_of_token("fate-") is Fate.OK
    assert fate_of_token("fate-unknown-a") is Fate.OK
    assert fate_of_token("a-fate-down-a") is Fate.OK


def test_only_fates_with_a_number_depend_on_earlier_calls() -> None:
    flaky, throttle = ResponseKind.UNAVAILABLE, ResponseKind.THROTTLE
    accepted_twice = [ResponseKind.ACCEPT] * 2
    assert [response_kind(Fate.FLAKY, n) for n in range(4)] == [flaky] * 2 + accepted_twice
    assert [response_kind(Fate.THROTTLE, n) for n in range(4)] == [throttle] * 2 + accepted_twice
    for fate in set(Fate) - {Fate.FLAKY, Fate.THROTTLE}:
        assert len({response_kind(fate, n) for n in range(4)}) == 1


async def test_an_sms_is_answered_like_twilio(http: aiohttp.ClientSession) -> None:
    status, sent = await send_sms(http, "+15005550006", Idempotency_Key="n1", Notifier_Claim="3")
    assert (status, sent["sid"][:2], sent["to"]) == (201, "SM", "+15005550006")
    status, refused = await send_sms(http, "+15005550001")
    assert (status, refused["code"], refused["status"]) == (400, 21211, 400)
    logged = await calls(http)
    assert [(call["notification_id"], call["claim"]) for call in logged] == [
        ("n1", 3),
        (None, None),
    ]


async def test_a_push_is_answered_like_fcm(http: aiohttp.ClientSession) -> None:
    async with http.post(PUSH, json={"message": {"token": "t"}}) as response:
        assert response.status == 200
        assert (await response.json())["name"].startswith("projects/p/messages/")
    async with http.post(PUSH, json={"message": {"token": "fate-refuse-t"}}) as response:
        assert response.status == 404
        error = (await response.json())["error"]
    assert (error["status"], error["details"][0]["errorCode"]) == ("NOT_FOUND", "UNREGISTERED")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"message": {"token": 1}}', b"\xff"])
async def test_a_push_without_a_token_is_refused_and_not_logged(
    http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post(PUSH, data=body) as response:
        assert response.status == 400
    assert await calls(http) == []


async def test_a_throttled_sms_has_retry_after_and_is_counted_by_notification(
    http: aiohttp.ClientSession,
) -> None:
    for id_ in ("a", "b"):
        for expected in (429, 429, 201):
            async with http.post(
                SMS, data={"To": "+15005550003"}, headers={"Idempotency-Key": id_}
            ) as response:
                assert response.status == expected
                assert response.headers.get("Retry-After") == ("1" if expected == 429 else None)


async def test_an_email_is_logged_with_the_ids_in_its_headers(
    smtp: SMTP, http: aiohttp.ClientSession
) -> None:
    id_ = str(uuid4())
    mail = f"Message-ID: <{id_}@shop.example>\r\nX-Notifier-Claim: 2\r\n\r\nMessage-ID: <no@x>\r\n"
    await smtp.sendmail("me@example.com", ["ann@example.com"], mail)
    [call] = await calls(http)
    assert datetime.fromisoformat(call.pop("at")) <= datetime.now(UTC)
    assert call == {
        "channel": "email",
        "recipient": "ann@example.com",
        "notification_id": id_,
        "claim": 2,
        "fate": "ok",
        "accepted": True,
        "status": 250,
    }


async def test_an_email_to_refuse_is_refused_at_rcpt_and_logged_with_its_envid(
    smtp: SMTP, http: aiohttp.ClientSession
) -> None:
    for options in ([], ["RET=HDRS", "ENVID=n1.4"]):
        await smtp.mail("me@example.com", options=options)
        with pytest.raises(SMTPRecipientRefused) as raised:
            await smtp.rcpt("refuse@example.com")
        assert (raised.value.code, raised.value.message[:5]) == (550, "5.1.1")
        await smtp.rset()
    logged = await calls(http)
    assert [(call["notification_id"], call["claim"]) for call in logged] == [
        (None, None),
        ("n1", 4),
    ]


async def test_a_mail_may_have_several_recipients_and_the_first_is_logged(
    smtp: SMTP, http: aiohttp.ClientSession
) -> None:
    recipients = ["a@x.example", "b@x.example", "refuse@x.example"]
    errors, _ = await smtp.sendmail("me@x.example", recipients, "\r\nhi\r\n")
    assert {address: reply.code for address, reply in errors.items()} == {"refuse@x.example": 550}
    assert [call["recipient"] for call in await calls(http)] == ["a@x.example"]


async def test_calls_are_filtered_and_paged(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    add_calls(sandbox.log, 60, start)
    assert len(await calls(http)) == 60
    assert len(await calls(http, "?channel=sms")) == 20
    assert [call["recipient"] for call in await calls(http, "?notification_id=id-7")] == [
        "a14@example.com",
        "a15@example.com",
    ]
    for since in ("2030-01-01T00:00:00.050Z", f"{start.timestamp() + 0.05}"):
        assert len(await calls(http, f"?since={since}")) == 10
    page = await calls(http, "?after=20&limit=10")
    assert [call["recipient"] for call in page] == [f"a{n}@example.com" for n in range(20, 30)]
    assert await calls(http, "?after=60") == []
    assert await calls(http, "?limit=0") == []


@pytest.mark.parametrize(
    "query", ["channel=fax", "since=soon", "after=-1", "limit=x", "chanel=sms", "limit=1e9"]
)
async def test_the_problem_names_a_wrong_filter(http: aiohttp.ClientSession, query: str) -> None:
    async with http.get(f"/calls?{query}") as response:
        assert response.status == 400
        assert response.content_type == "application/problem+json"
        assert (await response.json())["field"] == query.partition("=")[0]


async def test_a_long_log_is_returned_whole(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    add_calls(sandbox.log, 25_000, datetime(2030, 1, 1, tzinfo=UTC))
    async with http.get("/calls") as response:
        listed = msgspec.json.decode(await response.read(), type=list[Call])
        assert response.headers["Total-Calls"] == "25000"
    assert listed == list(sandbox.log.select(CallFilter()))


async def test_the_summary_counts_repeated_notifications_and_groups(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    for id_, claim in (("a", 1), ("a", 2), ("b", 1), ("b", 1), (None, None), (None, None)):
        is_accepted = claim != 2
        sandbox.log.add(Call(datetime.now(UTC), "sms", "+1", id_, claim, "ok", is_accepted, 201))
    async with http.get("/calls/summary") as response:
        assert await response.json() == {
            "calls": 6,
            "accepted": 5,
            "notifications": 2,
            "accepted_notifications": 2,
            "doubled": 1,
            "groups": [
                {"channel": "sms", "fate": "ok", "accepted": False, "calls": 1},
                {"channel": "sms", "fate": "ok", "accepted": True, "calls": 5},
            ],
        }


async def test_clearing_the_log_resets_the_counts(http: aiohttp.ClientSession) -> None:
    statuses = [(await send_sms(http, "+15005550002", Idempotency_Key="a"))[0] for _ in range(3)]
    assert statuses == [503, 503, 201]
    async with http.delete("/calls") as response:
        assert response.status == 204
    assert await calls(http) == []
    assert (await send_sms(http, "+15005550002", Idempotency_Key="a"))[0] == 503


async def test_errors_can_be_configured_for_one_channel(
    http: aiohttp.ClientSession, smtp: SMTP
) -> None:
    patch = {"channel": "sms", "error_share": 1, "status": 429, "retry_after": 7}
    status, behaviour = await put_behaviour(http, patch)
    assert status == 200
    assert behaviour["email"]["error_share"] == 0
    async with http.post(SMS, data={"To": "+1"}) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
    await smtp.sendmail("me@example.com", ["ann@example.com"], "\r\nhi\r\n")
    assert [(call["status"], call["accepted"]) for call in await calls(http)] == [
        (429, False),
        (250, True),
    ]


@pytest.mark.parametrize(("status", "code"), [(None, 451), (503, 451), (429, 450), (452, 452)])
async def test_an_http_status_for_every_channel_becomes_its_smtp_code(
    http: aiohttp.ClientSession, smtp: SMTP, status: int | None, code: int
) -> None:
    await put_behaviour(http, {"error_share": 1.0, "status": status})
    await smtp.mail("me@example.com")
    await smtp.rcpt("ann@example.com")
    data = await smtp.execute_command(b"DATA")
    assert data.code == 354
    assert (await smtp.execute_command(b".")).code == code


async def test_the_error_share_is_about_that_share_of_calls(http: aiohttp.ClientSession) -> None:
    await put_behaviour(http, {"channel": "sms", "error_share": 0.3})
    statuses = [(await send_sms(http, "+15005550006"))[0] for _ in range(200)]
    assert set(statuses) == {201, 503}
    assert 30 <= statuses.count(503) <= 90


async def test_a_call_without_the_password_is_answered_401(
    http: aiohttp.ClientSession,
) -> None:
    await put_behaviour(http, {"channel": "sms", "password": "right"})
    wrong = aiohttp.encode_basic_auth("AC1", "wrong")
    right = aiohttp.encode_basic_auth("AC1", "right")
    assert (await send_sms(http, "+15005550006"))[0] == 401
    assert (await send_sms(http, "+15005550006", Authorization="Basic ***"))[0] == 401
    assert (await send_sms(http, "+15005550006", Authorization=wrong))[0] == 401
    assert (await send_sms(http, "+15005550006", Authorization=right))[0] == 201
    assert [call["accepted"] for call in await calls(http)] == [False, False, False, True]


async def test_an_absent_field_returns_to_its_default(http: aiohttp.ClientSession) -> None:
    _, first = await put_behaviour(http, {})
    await put_behaviour(http, {"latency_ms": 5, "error_share": 0.5, "hang_s": 1})
    _, slow = await put_behaviour(http, {"channel": "push", "latency_ms": 3.5, "status": None})
    assert slow["push"] == {**first["push"], "latency_ms": 3.5}
    assert slow["sms"]["error_share"] == 0.5
    _, last = await put_behaviour(http, {})
    assert last == first
    async with http.get("/behaviour") as response:
        assert await response.json() == first


async def test_a_slow_channel_does_not_delay_another(http: aiohttp.ClientSession) -> None:
    await put_behaviour(http, {"channel": "sms", "latency_ms": 600_000})
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(send_sms(http, "+15005550006"))
        while not await calls(http):
            await asyncio.sleep(0)
        async with http.post(PUSH, json={"message": {"token": "t"}}) as response:
            assert response.status == 200
        slow.cancel()


async def test_a_response_takes_at_least_the_latency(
    http: aiohttp.ClientSession, smtp: SMTP
) -> None:
    await put_behaviour(http, {"latency_ms": 30})
    loop = asyncio.get_running_loop()
    for send in (send_sms(http, "+15005550006"), smtp.sendmail("a@x.example", ["b@x.example"], "")):
        started = loop.time()
        await send
        assert loop.time() - started >= 0.029


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "fax"}, "channel"),
        ({"channel": 1}, "channel"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": "1"}, "latency_ms"),
        ({"error_share": 1.1}, "error_share"),
        ({"status": 200}, "status"),
        ({"retry_after": -1}, "retry_after"),
        ({"retry_after": 1.5}, "retry_after"),
        ({"hang_s": 1e9}, "hang_s"),
        ({"password": "x"}, "password"),
        ({"channel": "email", "password": "x"}, "password"),
        ({"lateny_ms": 1}, "lateny_ms"),
        ([], "body"),
        ("x", "body"),
    ],
)
async def test_the_problem_names_a_wrong_field_and_nothing_changes(
    http: aiohttp.ClientSession, body: object, field: str
) -> None:
    await put_behaviour(http, {"latency_ms": 1})
    status, problem = await put_behaviour(http, body)
    assert (status, problem["field"]) == (400, field)
    async with http.get("/behaviour") as response:
        assert {behaviour["latency_ms"] for behaviour in (await response.json()).values()} == {1}


async def test_a_hanging_call_ends_after_hang_s(http: aiohttp.ClientSession, smtp: SMTP) -> None:
    await put_behaviour(http, {"hang_s": 0.05})
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await send_sms(http, "+15005550005")
    with pytest.raises(ConnectionError):
        await smtp.sendmail("me@example.com", ["hang@example.com"], "\r\nhi\r\n")
    assert [call["accepted"] for call in await calls(http)] == [False, False]


WEBHOOK = {
    "version": "4",
    "receiver": "page",
    "status": "firing",
    "groupKey": "{}:{alertname='QueueWaits'}",
    "commonLabels": {"alertname": "QueueWaits"},
    "alerts": [
        {
            "status": status,
            "labels": {"alertname": "QueueWaits", "queue": queue, "severity": "page"},
            "annotations": {"summary": f"{queue} waits"},
            "startsAt": "2030-01-31T12:00:00Z",
        }
        for status, queue in (("firing", "sms.high"), ("resolved", "email.high"))
    ],
}


async def test_every_alert_of_a_webhook_is_kept_in_order(http: aiohttp.ClientSession) -> None:
    for receiver in ("page", "ticket"):
        async with http.post("/alerts", json={**WEBHOOK, "receiver": receiver}) as response:
            assert response.status == 204
    async with http.get("/alerts") as response:
        kept = await response.json()
    assert [(alert["receiver"], alert["status"], alert["labels"]["queue"]) for alert in kept] == [
        ("page", "firing", "sms.high"),
        ("page", "resolved", "email.high"),
        ("ticket", "firing", "sms.high"),
        ("ticket", "resolved", "email.high"),
    ]
    assert kept[0]["annotations"] == {"summary": "sms.high waits"}
    assert datetime.fromisoformat(kept[0]["at"]).tzinfo is not None


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"receiver": "page"}'])
async def test_an_invalid_webhook_is_refused_and_not_kept(
    http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post("/alerts", data=body) as response:
        assert (response.status, (await response.json(content_type=None))["field"]) == (400, "body")
    async with http.get("/alerts") as response:
        assert await response.json() == []


def test_only_the_newest_alerts_are_kept() -> None:
    log = AlertLog()
    for number in range(MAX_ALERTS + 1):
        alert = {"status": "firing", "labels": {"number": str(number)}}
        log.add(json.dumps({"receiver": "page", "alerts": [alert]}).encode())
    assert [alert.labels["number"] for alert in log.all()] == [
        str(n) for n in range(1, MAX_ALERTS + 1)
    ]


async def test_the_sandbox_closes_while_calls_hang() -> None:
    async with (
        asyncio.TaskGroup() as group,
        aiohttp.ClientSession() as http,
        open_sandbox(http_port=0, smtp_port=0) as sandbox,
    ):
        client = SMTP(
            hostname=sandbox.host, port=sandbox.smtp_port, local_hostname="t", start_tls=False
        )
        await client.connect()
        sms = group.create_task(_hanging_sms(http, sandbox.http_url))
        email = group.create_task(_hanging_mail(client))
        while len(sandbox.log) < 2:
            await asyncio.sleep(0)
    assert isinstance(sms.result(), aiohttp.ClientError)
    assert isinstance(email.result(), ConnectionError)


async def _hanging_sms(http: aiohttp.ClientSession, url: str) -> Exception | None:
    try:
        await http.post(url + SMS, data={"To": "+15005550005"})
    except aiohttp.ClientError as error:
        return error
    return None


async def _hanging_mail(client: SMTP) -> Exception | None:
    try:
        await client.sendmail("me@x.example", ["hang@x.example"], "\r\nhi\r\n")
    except ConnectionError as error:
        return error
    return None


async def test_the_error_of_a_port_in_use_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port}: in use.*NOTIFIER_SANDBOX__SMTP_PORT"):
            async with open_sandbox(http_port=0, smtp_port=port):
                pass
        with pytest.raises(ConfigError, match=f"{port}: in use.*NOTIFIER_SANDBOX__HTTP_PORT"):
            async with open_sandbox(http_port=port, smtp_port=0):
                pass


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "fax", "url": "http://127.0.0.1", "secret": "s" * 24}, "channel"),
        ({"channel": "sms", "url": "http://127.0.0.1", "secret": "short"}, "secret"),
        ({"channel": "sms", "url": "http://127.0.0.1"}, "secret"),
        ({"channel": "sms", "after_s": -1}, "body"),
        ({"channel": "sms", "to": "x"}, "body"),
        ([], "body"),
    ],
)
async def test_the_problem_names_what_is_wrong_with_a_target_of_receipts(
    http: aiohttp.ClientSession, body: object, field: str
) -> None:
    async with http.put("/receipts", data=json.dumps(body)) as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["field"]) == (400, field)


async def test_a_receipt_is_repeated_until_it_is_taken(http: aiohttp.ClientSession) -> None:
    bodies: list[bytes] = []
    taken = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        if len(bodies) == 2:
            taken.set()
        return web.Response(status=503 if len(bodies) == 1 else 204)

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target = {
        "channel": "sms",
        "url": f"http://127.0.0.1:{runner.addresses[0][1]}/",
        "secret": "s" * 24,
    }
    async with http.put("/receipts", data=json.dumps(target)) as response:
        assert response.status == 204
    _, sms = await send_sms(http, "+15005550009")
    await taken.wait()
    await runner.cleanup()
    assert bodies[0] == bodies[1]
    [receipt] = json.loads(bodies[0])["receipts"]
    assert (receipt["event"], receipt["reference"]) == ("bounced", sms["sid"])
    assert receipt["recipient"] == "+15005550009"
