"""The settings of an SMTP provider."""

from typing import Annotated, Literal

from msgspec import Meta

from notifier.adapters.providers.settings import ProviderSettings, Seconds

Port = Annotated[int, Meta(ge=1, le=65_535)]
Host = Annotated[str, Meta(min_length=1, max_length=255, description="a host name or address")]


class SmtpSettings(ProviderSettings, frozen=True, kw_only=True, tag_field="type", tag="smtp"):
    """`[providers.<name>]` with `type = "smtp"`.

    `sender` is the From address, with or without a display name. `envelope_sender`, which receives
    bounces, and `domain`, of the Message-ID, default to its parts. `timeout_s` bounds one whole
    send, including the wait for a session; keep it below the worker's `send_timeout_s`.
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
    timeout_s: Seconds = 15.0
