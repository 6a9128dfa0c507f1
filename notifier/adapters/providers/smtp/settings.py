"""The settings of an SMTP provider."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta

from notifier.adapters.providers.settings import Seconds, SignedReceiptSettings
from notifier.adapters.providers.verdict import VerdictName

LARGEST_MAIL_S: Final = 120.0
"""Beyond `timeout_s`, for a mail with 10 MiB of files: see LEAST_BYTES_PER_S in provider.py."""
Port = Annotated[int, Meta(ge=1, le=65_535)]
Host = Annotated[str, Meta(min_length=1, max_length=255, description="a host name or address")]


class SmtpSettings(SignedReceiptSettings, frozen=True, kw_only=True, tag_field="type", tag="smtp"):
    """`[providers.<name>]` with `type = "smtp"`.

    `sender` is the From address, with or without a display name. `envelope_sender`, which receives
    bounces, and `domain`, of the Message-ID, default to its parts. `timeout_s` bounds a send up to
    the final dot of the mail, including the wait for a session, and a large mail may take longer
    by 1 s for each 128 KiB; `final_timeout_s` bounds the wait
    for the reply to the dot. `max_connections` is an upper bound: the worker finds how many the
    server takes. `replies` overrides outcomes: its keys are reply codes, enhanced codes, or regular
    expressions that are searched in code and text, ignoring case.
    """

    host: Host
    port: Port = 25
    security: Literal["none", "starttls", "tls"] = "none"
    ca_file: str = ""
    username: str = ""
    password: str = ""
    sender: Annotated[str, Meta(min_length=3, max_length=320)] = "Notifier <notifier@example.com>"
    envelope_sender: str = ""
    domain: str = ""
    ehlo_name: str = ""
    idle_s: Seconds = 30.0
    final_timeout_s: Seconds = 120.0
    replies: Mapping[str, VerdictName] = {}

    @property
    def longest_send_s(self) -> float:
        """Implements ProviderSettings.longest_send_s."""
        return self.timeout_s + LARGEST_MAIL_S + self.final_timeout_s
