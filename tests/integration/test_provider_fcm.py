"""Push through FCM: signing in as a service account, and what its answers mean."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from notifier.adapters.providers.fcm.provider import check_fcm, open_fcm
from notifier.adapters.providers.fcm.settings import ANSWERS, SCOPE, FcmAnswer, FcmSettings
from notifier.adapters.providers.http import access_tokens
from notifier.adapters.providers.http import provider as provider_module
from notifier.adapters.providers.http.access_tokens import AccessTokens, ServiceAccount
from notifier.adapters.providers.http.signing import NotSigned
from notifier.adapters.providers.http.transport import open_client
from notifier.adapters.providers.registry import open_provider
from notifier.domain.errors import ConfigError
from notifier.domain.finding import CheckStatus
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Misconfigured, Outcome, Unavailable
from notifier.ports.provider import Envelope, Provider

EMAIL: Final = "push@project-1.iam.gserviceaccount.com"
ERROR_TYPE: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
STATUS_OF: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""The `status` of an error of Google's APIs: cloud.google.com/apis/design/errors."""
WITHOUT_CODE: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED")


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


KEY, OTHER_KEY = new_key(), new_key()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def account(token_uri: str, key: rsa.RSAPrivateKey = KEY, **changes: str) -> str:
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project-1",
            "private_key_id": "key-1",
            "private_key": pem(key),
            "client_email": EMAIL,
            "token_uri": token_uri,
            **changes,
        }
    )


def message() -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("push.high"),
        recipient="device-1",
        content={"subject": "Hi", "body": "there"},
    )


@dataclass
class Google:
    """Both services: grants tokens for assertions that it has verified, and takes messages."""

    life_s: float = 3600.0
    """How long a token is valid: twice as long as it says, for calls that are under way."""
    key: rsa.RSAPrivateKey = KEY
    url: str = ""
    granted_at_s: list[float] = field(default_factory=list)
    """When each token was granted; the token itself is its number."""
    revoked: set[int] = field(default_factory=set)
    asked: int = 0
    """How often the sign-in was called."""
    calls: int = 0
    used: list[int] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    """What the sign-in answers instead of a token."""
    fault: FcmAnswer | None = None
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    def settings(self, **changes: Any) -> FcmSettings:
        text = changes.pop("service_account", account(self.token_url))
        return FcmSettings(url=self.url, service_account=text, **changes)

    async def grant(self, request: web.Request) -> web.Response:
        self.asked += 1
        form = await request.post()
        await self.may_answer.wait()
        if self.refusal is not None:
            status, text = self.refusal
            return web.Response(status=status, text=text)
        assertion = str(form["assertion"])
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        try:
            claims = jwt.decode(
                assertion, self.key.public_key(), algorithms=["RS256"], audience=self.token_url
            )
        except jwt.InvalidSignatureError:
            body = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return web.json_response(body, status=400)
        assert jwt.get_unverified_header(assertion)["kid"] == "key-1"
        assert (claims["iss"], claims["scope"]) == (EMAIL, SCOPE)
        assert claims["exp"] - claims["iat"] <= 3600
        self.granted_at_s.append(time.monotonic())
        token = f"ya29.{len(self.granted_at_s) - 1}"
        granted = {"access_token": token, "expires_in": self.life_s / 2, "token_type": "Bearer"}
        return web.json_response(granted)

    async def take(self, request: web.Request) -> web.Response:
        self.calls += 1
        token = request.headers.get("Authorization", "")
        number = int(token.removeprefix("Bearer ya29.") or -1)
        is_valid = (
            0 <= number < len(self.granted_at_s)
            and number not in self.revoked
            and time.monotonic() < self.granted_at_s[number] + self.life_s
        )
        if not is_valid:
            return error_response(401, "", "Request had invalid authentication credentials.")
        if self.fault is not None:
            code = "" if self.fault.code in WITHOUT_CODE else self.fault.code
            return error_response(self.fault.status, code, f"Not taken: {token}")
        self.used.append(number)
        project = request.match_info["project"]
        return web.json_response({"name": f"projects/{project}/messages/{len(self.used)}"})


def error_response(status: int, code: str, text: str) -> web.Response:
    """An error as the guide shows it: firebase.google.com/docs/cloud-messaging/error-codes."""
    details = [{"@type": ERROR_TYPE, "errorCode": code}] if code else []
    error = {"code": status, "message": text, "status": STATUS_OF[status], "details": details}
    return web.json_response({"error": error}, status=status)


@asynccontextmanager
async def open_google(**options: Any) -> AsyncIterator[Google]:
    google = Google(**options)
    google.may_answer.set()
    app = web.Application()
    app.router.add_post("/token", google.grant)
    app.router.add_post("/v1/projects/{project}/messages:send", google.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    google.url = f"http://{host}:{port}"
    try:
        yield google
    finally:
        google.may_answer.set()
        await runner.cleanup()


@dataclass
class ManualClock:
    """A clock that a test sets."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def open_tokens(google: Google) -> AsyncIterator[tuple[AccessTokens, ManualClock]]:
    settings, clock = google.settings(), ManualClock()
    parsed = ServiceAccount.parse(settings.service_account, "key")
    async with open_client("push", settings.sign_in(google.token_url)) as client:
        yield AccessTokens("push", parsed, SCOPE, client, clock), clock


async def send_many(provider: Provider, count: int) -> list[Outcome]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(provider.send(message()), name="send") for _ in range(count)]
    return [task.result() for task in tasks]


async def test_many_sends_at_once_sign_in_once() -> None:
    async with open_google() as google, open_fcm("push", google.settings()) as push:
        outcomes = await send_many(push, 50)
        outcomes += await send_many(push, 50)
    assert {outcome.name for outcome in outcomes} == {"accepted"}
    assert len(google.granted_at_s) == 1
    first = outcomes[0]
    assert isinstance(first, Accepted)
    assert first.reference.startswith("projects/project-1/messages/")


async def test_a_token_is_renewed_once_before_it_ends_while_many_send() -> None:
    async with open_google(life_s=1.0) as google, open_fcm("push", google.settings()) as push:

        async def send_on() -> None:
            while len(google.granted_at_s) < 4:
                assert isinstance(await push.send(message()), Accepted)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(send_on(), name="sends")
    assert len(google.granted_at_s) == 4
    assert google.calls == len(google.used)  # no call with a token that had ended


async def test_a_token_that_is_refused_is_renewed_and_the_message_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_tokens, "MIN_AGE_S", 0.0)
    async with open_google() as google, open_fcm("push", google.settings()) as push:
        assert isinstance(await push.send(message()), Accepted)
        google.revoked.add(0)
        outcomes = await send_many(push, 10)
    assert {outcome.name for outcome in outcomes} == {"accepted"}
    assert len(google.granted_at_s) == 2


async def test_a_new_token_that_is_refused_is_not_renewed_again() -> None:
    async with open_google() as google, open_fcm("push", google.settings()) as push:
        google.revoked.update(range(10))
        outcome = await push.send(message())
    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.is_credentials) == ("UNAUTHENTICATED", True)
    assert (google.calls, len(google.granted_at_s)) == (1, 1)


async def test_a_refused_sign_in_calls_nobody_and_says_why() -> None:
    async with open_google(key=OTHER_KEY) as google, open_fcm("push", google.settings()) as push:
        outcomes = await send_many(push, 5)
    assert google.calls == 0
    for outcome in outcomes:
        assert isinstance(outcome, Misconfigured)
        assert (outcome.code, outcome.is_credentials) == ("invalid_grant", True)
        assert outcome.detail == "sign-in: Invalid JWT Signature."


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ((503, '{"error": "backend_error"}'), "backend_error"),
        ((400, '{"error": "temporarily_unavailable"}'), "temporarily_unavailable"),
        ((429, "{}"), "429"),
        ((503, "<html>assertion=eyJ</html>"), "503"),
        ((200, "<html>Please sign in to the network</html>"), "sign_in"),
        ((200, '{"access_token": "a\\nb", "expires_in": 9}'), "sign_in"),
        ((200, '{"access_token": "a", "expires_in": "soon"}'), "sign_in"),
        ((200, '{"a":' * 5000), "sign_in"),
    ],
)
async def test_a_sign_in_that_fails_is_tried_again_after_a_second(
    refusal: tuple[int, str], code: str
) -> None:
    async with open_google(refusal=refusal) as google, open_tokens(google) as (tokens, clock):
        for _ in range(2):
            with pytest.raises(NotSigned) as caught:
                await tokens.get()
            assert isinstance(caught.value.outcome, Unavailable)
            assert caught.value.outcome.code == code
            assert "eyJ" not in caught.value.outcome.detail
            google.refusal = None  # the second one does not ask: it comes too soon
        clock.now_s += access_tokens.RETRY_S
        assert await tokens.get() == "ya29.0"


async def test_a_valid_token_is_used_while_none_is_granted() -> None:
    async with open_google(life_s=7200.0) as google, open_tokens(google) as (tokens, clock):
        assert await tokens.get() == "ya29.0"
        google.refusal = (503, "{}")
        clock.now_s += 3600 - access_tokens.MARGIN_S - 1
        assert await tokens.get() == "ya29.0"
        clock.now_s += 1
        with pytest.raises(NotSigned):
            await tokens.get()
        assert google.asked == 3  # at first, 11 s before the end, and after it
        google.refusal = None
        clock.now_s += access_tokens.RETRY_S
        assert await tokens.get() == "ya29.1"


async def test_a_sign_in_that_hangs_delays_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider_module, "SIGN_TIMEOUT_S", 0.3)
    async with open_google() as google, open_fcm("push", google.settings()) as push:
        google.may_answer.clear()
        async with asyncio.timeout(10.0):
            outcomes = await send_many(push, 5)
        monkeypatch.setattr(access_tokens, "RETRY_S", 0.0)
        google.may_answer.set()
        assert isinstance(await push.send(message()), Accepted)
    assert {(outcome.name, outcome.code) for outcome in outcomes} == {("unavailable", "timeout")}
    assert google.calls == 1


async def test_a_key_that_was_replaced_in_its_file_works_without_a_restart() -> None:
    async with open_google() as google:
        google.key = OTHER_KEY
        replaced = google.settings(service_account=account(google.token_url, OTHER_KEY))
        async with open_provider("push", google.settings(), lambda: replaced) as push:
            assert isinstance(await push.send(message()), Accepted)


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: row.code)
async def test_each_error_code_means_what_the_table_says(row: FcmAnswer) -> None:
    verdicts = {"gone": "refused", "credentials": "misconfigured"}
    async with open_google(fault=row) as google, open_fcm("push", google.settings()) as push:
        outcome = await push.send(message())
    assert (outcome.name, outcome.code) == (verdicts.get(row.verdict, row.verdict), row.code)
    if isinstance(outcome, Misconfigured):
        assert outcome.is_credentials is (row.verdict == "credentials")
    assert len(google.granted_at_s) == 1


async def test_no_detail_has_the_token() -> None:
    fault = FcmAnswer("INTERNAL", 500, "unavailable", "")
    async with open_google(fault=fault) as google, open_fcm("push", google.settings()) as push:
        outcome = await push.send(message())
    assert isinstance(outcome, Unavailable)
    assert "ya29" not in outcome.detail
    assert "***" in outcome.detail


async def test_the_url_may_be_the_whole_one_as_it_was_for_type_http() -> None:
    async with open_google() as google:
        settings = google.settings()
        whole = FcmSettings(
            url=f"{google.url}/v1/projects/other/messages:send",
            service_account=settings.service_account,
        )
        async with open_fcm("push", whole) as push:
            outcome = await push.send(message())
    assert isinstance(outcome, Accepted)
    assert outcome.reference == "projects/other/messages/1"


async def test_a_status_of_the_settings_counts_before_the_table() -> None:
    fault = FcmAnswer("INVALID_ARGUMENT", 400, "refused", "")
    async with open_google(fault=fault) as google:
        settings = google.settings(answers={"400": "misconfigured"})
        async with open_fcm("push", settings) as push:
            assert isinstance(await push.send(message()), Misconfigured)


async def test_a_late_refusal_of_a_token_is_not_repeated_but_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_tokens, "MIN_AGE_S", 0.0)
    async with open_google() as google, open_fcm("push", google.settings()) as push:
        assert isinstance(await push.send(message()), Accepted)
        monkeypatch.setattr(provider_module, "SIGN_TIMEOUT_S", 0.0)
        google.revoked.add(0)
        assert isinstance(await push.send(message()), Misconfigured)
        assert google.calls == 2
        monkeypatch.undo()
        assert isinstance(await push.send(message()), Accepted)


async def test_the_check_signs_in_and_sends_nothing() -> None:
    async with open_google() as google:
        found = await check_fcm("push", google.settings())
        assert (found.status, google.calls) == (CheckStatus.OK, 0)
        assert EMAIL in found.finding
        google.key = OTHER_KEY
        refused = await check_fcm("push", google.settings())
    assert refused.status is CheckStatus.WRONG
    assert "invalid_grant" in refused.finding
    assert "providers.push" in refused.fix


URI: Final = "https://oauth2.example.com/token"
PUBLIC_PEM: Final = (
    KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (FcmSettings(), "service_account"),
        (FcmSettings(service_account="{"), "service_account"),
        (FcmSettings(service_account='{"client_email": "a"}'), "service_account"),
        (FcmSettings(service_account=account(URI, private_key="PEM")), "service_account"),
        (
            FcmSettings(
                service_account=account(
                    URI, private_key=pem(ec.generate_private_key(ec.SECP256R1()))
                )
            ),
            "service_account",
        ),
        (FcmSettings(service_account=account("file:///etc/passwd")), "service_account"),
        (FcmSettings(service_account=account(URI, project_id="")), "project"),
        (FcmSettings(service_account=account(URI), project="a/b"), "project"),
        (
            FcmSettings(service_account=account("http://oauth2.example.com/token")),
            "service_account",
        ),
        (FcmSettings(service_account=account("https://oäuth2.example.com")), "service_account"),
        (FcmSettings(service_account=account(URI, private_key=PUBLIC_PEM)), "service_account"),
        (
            FcmSettings(url="http://127.0.0.1:1/v1/projects/p/messages:send", project="p"),
            "project",
        ),
    ],
)
async def test_settings_that_cannot_work_are_refused_with_their_key(
    settings: FcmSettings, key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_fcm("push", settings):
            pass
    assert caught.value.key == f"providers.push.{key}"
    assert "PRIVATE KEY" not in str(caught.value)


def test_no_repr_shows_the_key() -> None:
    settings = FcmSettings(service_account=account(URI))
    assert "PRIVATE KEY" not in repr(settings)
    parsed = ServiceAccount.parse(settings.service_account, "k")
    assert repr(parsed) == f"ServiceAccount('{EMAIL}')"


def test_the_page_has_every_code_of_the_table() -> None:
    page = Path("docs/providers/fcm.md").read_text()
    rows = [f"| `{row.code}` | {row.status} | {row.verdict} | {row.note} |" for row in ANSWERS]
    assert "\n".join(rows) in page
