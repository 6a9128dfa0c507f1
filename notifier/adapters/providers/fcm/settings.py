"""The settings of FCM, and what its answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from notifier.adapters.providers.http.answers import verdict_of
from notifier.adapters.providers.http.settings import AnswerKey, HttpSettings, Template
from notifier.adapters.providers.http.signing import SIGN_TIMEOUT_S
from notifier.adapters.providers.settings import Count, Seconds, SignedReceiptSettings
from notifier.adapters.providers.verdict import VerdictName

FCM: Final = "fcm"
URL: Final = "https://fcm.googleapis.com"
PATH: Final = "/v1/projects/"
NO_PROJECT: Final = "sandbox"
"""The project in requests to a server that knows no accounts."""
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
MESSAGE: Final = """{"message": {
  "token": {{ recipient|tojson }},
  "notification": {
    "title": {{ content.subject|default('')|tojson }},
    "body": {{ content.body|default('')|tojson }}
  }{% if content.data is defined %},
  "data": { {%- for key, value in content.data|items -%}
    {{ key|string|tojson }}: {{
      ('' if value is none else value if value is string else value|tojson)|tojson }}
    {%- if not loop.last %}, {% endif -%}
  {%- endfor -%} }{% endif %}
}}"""


class FcmAnswer(NamedTuple):
    """An error code of FCM, the status that goes with it, and what it means for a send."""

    code: str
    status: int
    verdict: VerdictName
    note: str


ANSWERS: Final = (
    FcmAnswer(
        "INVALID_ARGUMENT", 400, "refused", "not a device token, or a message that FCM refuses"
    ),
    FcmAnswer("UNREGISTERED", 404, "gone", "the app was removed, or has a new device token"),
    FcmAnswer("SENDER_ID_MISMATCH", 403, "refused", "a device token of another project"),
    FcmAnswer("QUOTA_EXCEEDED", 429, "throttled", "Notifier waits as long as `Retry-After` says"),
    FcmAnswer("UNAVAILABLE", 503, "unavailable", "Notifier waits as long as `Retry-After` says"),
    FcmAnswer("INTERNAL", 500, "unavailable", ""),
    FcmAnswer(
        "THIRD_PARTY_AUTH_ERROR",
        401,
        "credentials",
        "the APNs certificate or Web Push key in Firebase; other devices go on",
    ),
    FcmAnswer(
        "UNAUTHENTICATED", 401, "credentials", "the access token; Notifier asks for a new one"
    ),
    FcmAnswer(
        "PERMISSION_DENIED", 403, "credentials", "the account may not send, or the API is off"
    ),
)
"""firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, read on 2026-12-01. The last two are
statuses of Google's APIs that come without an ErrorCode."""


_OWN_ANSWERS: Final = {
    answer.code: answer.verdict for answer in ANSWERS if answer.verdict != verdict_of(answer.status)
}
"""The codes that mean something else than their status, which any status in `answers` overrides."""


class FcmSettings(SignedReceiptSettings, frozen=True, kw_only=True, tag_field="type", tag=FCM):
    """`[providers.<name>]` with `type = "fcm"`: push to Android, iOS and the Web over Firebase.

    `service_account` is the JSON key of a service account that may send messages, usually read
    from `service_account_file`; without one nothing signs in, as for the sandbox. `project` is its
    project by default. `url` is the server, or the whole URL of `messages:send`. `json` is the
    template of the message, `answers` overrides outcomes. `timeout_s` bounds the request; a send
    that has to sign in first may take 1.5 s longer.
    """

    service_account: str = ""
    project: str = ""
    url: Annotated[str, Meta(min_length=1, max_length=8192)] = URL
    json: Template = MESSAGE
    answers: Mapping[AnswerKey, VerdictName] = {}
    max_connections: Count = 100
    connect_timeout_s: Seconds = 5.0
    retry_after_max_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 3600.0
    proxy: str = ""
    ca_file: str = ""

    def requests(self, account_project: str) -> HttpSettings:
        """The settings of the requests to the API. A project that is set replaces the account's."""
        project = self.project or account_project
        path = "" if PATH in self.url else f"{PATH}{project}/messages:send"
        return HttpSettings(
            rate=self.rate,
            max_connections=self.max_connections,
            timeout_s=self.timeout_s,
            connect_timeout_s=self.connect_timeout_s,
            url=self.url.rstrip("/") + path,
            json=self.json,
            reference="name",
            error_code=("error.details.*.errorCode", "error.status"),
            answers=_OWN_ANSWERS | dict(self.answers),
            retry_after_max_s=self.retry_after_max_s,
            proxy=self.proxy,
            ca_file=self.ca_file,
        )

    def sign_in(self, token_url: str) -> HttpSettings:
        """The settings of the requests for tokens."""
        return HttpSettings(
            url=token_url,
            timeout_s=SIGN_TIMEOUT_S,
            max_connections=1,
            proxy=self.proxy,
            ca_file=self.ca_file,
        )
