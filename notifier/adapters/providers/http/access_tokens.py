"""Access tokens of a service account: OAuth 2.0 with a signed assertion (RFC 7523).

Google's form of it: developers.google.com/identity/protocols/oauth2/service-account, read on
2026-12-01. All sends of a process share an access token. It is renewed before it ends, by one of
them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlencode

import jwt
import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Meta

from notifier.adapters.providers.http.answers import verdict_of
from notifier.adapters.providers.http.failures import row_of
from notifier.adapters.providers.http.request import Request
from notifier.adapters.providers.http.responses import json_document
from notifier.adapters.providers.http.signing import NotSigned
from notifier.adapters.providers.http.transport import Answer, Failure, HttpClient
from notifier.adapters.providers.verdict import VerdictName, printable
from notifier.domain.errors import ConfigError
from notifier.domain.outcome import MAX_DETAIL_LENGTH, TIMEOUT, Misconfigured, Unavailable
from notifier.lifecycle import Clock, uptime_s

ASSERTION_S: Final = 3600
"""For how long an assertion says that it is valid; Google refuses more."""
RENEW_S: Final = 300.0
"""An access token is renewed when it is valid for less than this, or than a quarter of its life."""
MARGIN_S: Final = 10.0
"""An access token is not used so shortly before its end, or in the last twentieth of its life."""
RETRY_S: Final = 1.0
"""How long after a request for an access token that failed the next one is made."""
RETRY_VALID_S: Final = 30.0
"""The same while there is an access token that is still valid."""
MIN_AGE_S: Final = 60.0
"""An access token that is refused sooner is not to blame."""
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ALGORITHM: Final = "RS256"
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_HEADER: Final = "Authorization"
_REFUSED_TOKEN: Final = frozenset({"UNAUTHENTICATED", "401"})
_TEMPORARY: Final = frozenset({"internal_failure", "server_error", "temporarily_unavailable"})
"""Errors that say that the same request may succeed later, whatever the status is."""
_ERROR: Final = re.compile(r"[a-z_]{1,64}")  # RFC 6749 5.2; in its words no other characters occur
_URL: Final = re.compile(r"https?://[\x21-\x7e]+")

log = structlog.get_logger(__name__)


class ServiceAccount(NamedTuple):
    """A service account. Its repr shows no secret."""

    email: str
    key: RSAPrivateKey
    key_id: str
    project: str
    token_url: str

    @classmethod
    def parse(cls, text: str, setting: str) -> ServiceAccount:
        """Read the JSON that Google's console makes. Raises ConfigError with the setting."""
        try:
            stored = msgspec.json.decode(text, type=_StoredAccount)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"expected the key of a service account: {error}", key=setting
            ) from error
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ConfigError(
                "expected the key of a service account, in JSON", key=setting
            ) from error
        if not _URL.fullmatch(stored.token_uri):
            raise ConfigError("expected a token_uri that begins with https://", key=setting)
        return cls(
            stored.client_email,
            _private_key(stored.private_key, setting),
            stored.private_key_id,
            stored.project_id,
            stored.token_uri,
        )

    def assertion(self, scope: str, now_s: int) -> str:
        """Return a signed claim that asks for access tokens of a scope."""
        claims = {
            "iss": self.email,
            "scope": scope,
            "aud": self.token_url,
            "iat": now_s,
            "exp": now_s + ASSERTION_S,
        }
        headers = {"kid": self.key_id} if self.key_id else None
        return jwt.encode(claims, self.key, _ALGORITHM, headers)

    def __repr__(self) -> str:
        """The address of the account."""
        return f"ServiceAccount({self.email!r})"


class _StoredAccount(msgspec.Struct, kw_only=True):
    """The JSON of a service account, as far as it is used."""

    client_email: Annotated[str, Meta(min_length=1, max_length=320)]
    private_key: Annotated[str, Meta(min_length=1)]
    private_key_id: str = ""
    project_id: str = ""
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 a URL


class _Granted(msgspec.Struct):
    """The answer to an assertion (RFC 6749 5.1)."""

    access_token: Annotated[str, Meta(max_length=16_384, pattern=r"\A[\x21-\x7e]+\Z")]
    expires_in: Annotated[float, Meta(gt=0)]


class _Refusal(msgspec.Struct):
    """The answer to an assertion that is refused (RFC 6749 5.2)."""

    error: Annotated[str, Meta(pattern=rf"\A{_ERROR.pattern}\Z")]
    error_description: str = ""


class _Token(NamedTuple):
    """An access token. The times are those of the clock."""

    text: str
    got_at_s: float
    renew_at_s: float
    ends_at_s: float


class AccessTokens:
    """Implements http.signing.Signer with an access token of a service account."""

    def __init__(
        self,
        name: str,
        account: ServiceAccount,
        scope: str,
        client: HttpClient,
        clock: Clock = uptime_s,
    ) -> None:
        self._name = name
        self._account = account
        self._scope = scope
        self._client = client
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: _Token | None = None
        self._failed: Unavailable | Misconfigured | None = None
        self._failed_at_s = 0.0

    async def headers(self, request: Request) -> Mapping[str, str]:  # noqa: ARG002 any request
        """Return the header with an access token. Raises NotSigned."""
        return {_HEADER: f"Bearer {await self.get()}"}

    def drop_refused(self, headers: Mapping[str, str], code: str) -> bool:
        """Forget an access token that was refused; whether there may be another one."""
        if code not in _REFUSED_TOKEN:
            return False
        token = self._token
        if token is None or headers[_HEADER] != f"Bearer {token.text}":
            return True
        if self._clock() < token.got_at_s + MIN_AGE_S:
            return False
        self._token = None
        return True

    async def get(self) -> str:
        """Return an access token that is valid. Raises NotSigned.

        One send asks for it. The others wait for it only if the one before has ended.
        """
        if self._may_renew() and not (self._is_valid() and self._lock.locked()):
            async with self._lock:
                if self._may_renew():  # no other send has done so meanwhile
                    await self._renew()
        if self._token is not None and self._is_valid():
            return self._token.text
        raise NotSigned(self._failed or _timed_out())

    def _is_valid(self) -> bool:
        return self._token is not None and self._clock() < self._token.ends_at_s

    def _may_renew(self) -> bool:
        """Whether it is time for a new access token, and no request for one has just failed."""
        now_s = self._clock()
        if self._token is not None and now_s < self._token.renew_at_s:
            return False
        retry_s = RETRY_VALID_S if self._is_valid() else RETRY_S
        return self._failed is None or now_s >= self._failed_at_s + retry_s

    async def _renew(self) -> None:
        result: _Token | Unavailable | Misconfigured = _timed_out()  # if this is cancelled
        try:
            result = await self._granted()
        finally:
            self._note(result)

    def _note(self, result: _Token | Unavailable | Misconfigured) -> None:
        if isinstance(result, _Token):
            self._token, self._failed = result, None
            return
        self._failed, self._failed_at_s = result, self._clock()
        log.warning("sign_in_failed", provider=self._name, code=result.code)

    async def _granted(self) -> _Token | Unavailable | Misconfigured:
        asked_at_s = self._clock()
        assertion = self._account.assertion(self._scope, now_s=int(time.time()))
        body = urlencode({"grant_type": _GRANT, "assertion": assertion}).encode()
        answer = await self._client.request(self._account.token_url, _FORM, body)
        if isinstance(answer, Failure):
            row = row_of(answer)
            return _not_signed_in(row.verdict, row.code, answer.text)
        if verdict_of(answer.status) != "accepted":
            return _refused(answer)
        try:
            granted = msgspec.convert(json_document(answer.body), _Granted)
        except msgspec.ValidationError:
            return Unavailable(code="sign_in", detail="sign-in: the answer has no access token")
        life_s = granted.expires_in
        ends_at_s = asked_at_s + life_s
        return _Token(
            granted.access_token,
            asked_at_s,
            ends_at_s - min(RENEW_S, life_s / 4),
            ends_at_s - min(MARGIN_S, life_s / 20),
        )


def _private_key(text: str, setting: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError("expected a private_key of RSA, in PEM", key=setting)
    return key


def _timed_out() -> Unavailable:
    return Unavailable(code=TIMEOUT, detail="sign-in: no answer in time")


def _refused(answer: Answer) -> Unavailable | Misconfigured:
    """Return what an answer that grants no access token means. Only the words of RFC 6749 are kept.

    Anything else may be a page that repeats the request.
    """
    verdict, code = verdict_of(answer.status), str(answer.status)
    try:
        refusal = msgspec.convert(json_document(answer.body), _Refusal)
    except msgspec.ValidationError:
        return _not_signed_in(verdict, code, f"status {code}", answer.status)
    if refusal.error in _TEMPORARY:
        verdict = "unavailable"
    return _not_signed_in(verdict, refusal.error, refusal.error_description, answer.status)


def _not_signed_in(
    verdict: VerdictName, code: str, detail: str, status: int | None = None
) -> Unavailable | Misconfigured:
    """Return the outcome of a send that was not begun, because there is no access token for it."""
    detail = printable(f"sign-in: {detail}", MAX_DETAIL_LENGTH)
    if verdict not in ("refused", "gone", "credentials", "misconfigured"):
        return Unavailable(code=code, detail=detail, http_status=status)
    is_credentials = verdict != "misconfigured"
    return Misconfigured(
        code=code, detail=detail, http_status=status, is_credentials=is_credentials
    )
