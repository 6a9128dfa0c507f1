"""Checks of the settings that types cannot express: URLs and relations between keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from notifier.domain.credentials import NO_CREDENTIAL, parse_credential
from notifier.domain.inbox import INBOX
from notifier.domain.lookups import MAX_METADATA_KEYS, METADATA_KEY, METADATA_KEY_EXPECTED
from notifier.domain.mail_headers import is_allowable_name
from notifier.domain.notification import SANDBOX, TEST_CHANNEL, WEBHOOK_CHANNEL, Priority
from notifier.settings.problems import Problems, did_you_mean
from notifier.settings.tree import BROKER_URL, DATABASE_URL, KEY, PUBLIC_URL, Settings
from notifier.settings.urls import broker_url_problems, database_url_problems

MIN_SECRET_LENGTH: Final = 32
_DAY_S: Final = 86_400
_ORIGIN: Final = re.compile(
    r"https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?"
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_PREFIX: Final = re.compile(r"\+[1-9][0-9]{0,13}")


def check(settings: Settings, problems: Problems) -> None:
    """Report each URL that a driver cannot use, and each pair of settings that conflict."""
    database, broker = settings.database.url, settings.broker.url
    _url("database.url", database, DATABASE_URL, database_url_problems(database), problems)
    _url("broker.url", broker, BROKER_URL, broker_url_problems(broker), problems)
    _public_url(settings, problems)
    _trusted_proxies(settings, problems)
    _cors_origins(settings, problems)
    if any(len(secret) < MIN_SECRET_LENGTH for secret in settings.security.secrets):
        problems.wrong(
            "security.secret_key",
            settings.security.secret_key,
            f"secrets of at least {MIN_SECRET_LENGTH} characters, one a line",
        )
    _retention(settings, problems)
    _webhooks(settings, problems)
    key = settings.client.key
    if key and parse_credential(key) is NO_CREDENTIAL:
        problems.wrong("client.key", key, KEY)
    for header in settings.content.allowed_headers:
        if not is_allowable_name(header):
            expected = (
                "names of headers that neither Notifier nor mail servers set, like Precedence"
            )
            problems.wrong("content.allowed_headers", header, expected)
    for name in settings.limits.recipient_per_day:
        if name not in settings.channels:
            expected = "names in [channels]" + did_you_mean(name, settings.channels)
            problems.wrong("limits.recipient_per_day", name, expected)
    for prefix in settings.limits.sms_prefixes:
        if not _PREFIX.fullmatch(prefix):
            expected = "the beginning of a number in E.164 form, like +49"
            problems.wrong("limits.sms_prefixes", prefix, expected)
    _lookups(settings, problems)
    _channels(settings, problems)
    _priorities(settings, problems)
    _content_ages(settings, problems)
    if settings.worker.send_timeout_s >= settings.worker.grace_s:
        problems.wrong(
            "worker.send_timeout_s",
            settings.worker.send_timeout_s,
            f"less than worker.grace_s ({settings.worker.grace_s:g}), "
            "since a stop would cut off longer sends",
        )


def _url(key: str, url: str, expected: str, found: Iterable[str], problems: Problems) -> None:
    if url and (texts := list(found)):
        problems.wrong(key, url, f"{expected}: {'; '.join(texts)}")


def _public_url(settings: Settings, problems: Problems) -> None:
    url = settings.api.public_url
    try:
        is_usable = urlsplit(url).port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        problems.wrong("api.public_url", url, f"{PUBLIC_URL}, and a port from 1 to 65535")


def _trusted_proxies(settings: Settings, problems: Problems) -> None:
    for network in settings.api.trusted_proxies:
        try:
            ip_network(network, strict=False)
        except ValueError:
            problems.wrong(
                "api.trusted_proxies", network, "addresses or networks like 10.0.0.0/8 or ::1"
            )


def _cors_origins(settings: Settings, problems: Problems) -> None:
    for origin in settings.api.cors_origins:
        default_port = _DEFAULT_PORTS.get(origin.partition(":")[0], "")
        if not _ORIGIN.fullmatch(origin) or origin.endswith(default_port):
            problems.wrong(
                "api.cors_origins",
                origin,
                "origins as browsers write them, like https://app.example.com: in lower case, "
                "without a path, and without the usual port",
            )


def _lookups(settings: Settings, problems: Problems) -> None:
    keys = settings.lookups.metadata_keys
    for key in keys:
        if not METADATA_KEY.fullmatch(key):
            problems.wrong("lookups.metadata_keys", key, METADATA_KEY_EXPECTED)
    if len(set(keys)) < len(keys) or len(keys) > MAX_METADATA_KEYS:
        problems.wrong(
            "lookups.metadata_keys", list(keys), f"at most {MAX_METADATA_KEYS} names, each once"
        )


def _channels(settings: Settings, problems: Problems) -> None:
    if not settings.channels:
        problems.missing("channels", "at least one table like [channels.email]")
    for name, channel in settings.channels.items():
        if channel.provider not in settings.providers:
            problems.add(
                f"channels.{name}.provider",
                f"got {channel.provider!r}, expected a name in [providers]"
                + did_you_mean(channel.provider, settings.providers),
            )
        elif name == TEST_CHANNEL and settings.providers[channel.provider].get("type") != SANDBOX:
            problems.wrong(
                f"channels.{name}.provider",
                channel.provider,
                f'a provider with type = "{SANDBOX}": notifications of test keys are on this '
                "channel, and no one may get them; give a real channel another name",
            )
        _inbox(name, settings, problems)
        if channel.ambiguous == "hold" and channel.ambiguous_tries > 1:
            problems.wrong(
                f"channels.{name}.ambiguous_tries",
                channel.ambiguous_tries,
                'no value with ambiguous = "hold", which sends nothing again; remove it, or write '
                'ambiguous = "resend"',
            )


def _inbox(name: str, settings: Settings, problems: Problems) -> None:
    channel = settings.channels[name]
    provider = settings.providers.get(channel.provider, {})
    if (provider.get("type") == INBOX) != (channel.address == "user"):
        problems.wrong(
            f"channels.{name}.address",
            channel.address,
            f'"user" for a provider with type = "{INBOX}", and for no other',
        )
    elif channel.address == "user" and name != INBOX:
        problems.add(
            f"channels.{name}.provider",
            f'got {channel.provider!r} with type = "{INBOX}", expected it in [channels.{INBOX}] '
            "only: there is one inbox per user",
        )


def _retention(settings: Settings, problems: Problems) -> None:
    if settings.retention.events_days > settings.retention.days:
        problems.wrong(
            "retention.events_days",
            settings.retention.events_days,
            f"at most retention.days ({settings.retention.days})",
        )


def _content_ages(settings: Settings, problems: Problems) -> None:
    max_s = settings.retention.days * _DAY_S
    for name in Priority:
        if (age_s := settings.retention.content_s.of(name)) > max_s:
            problems.wrong(
                f"retention.content_s.{name}", age_s, f"at most retention.days ({max_s} seconds)"
            )


def _webhooks(settings: Settings, problems: Problems) -> None:
    for table, names in (("channels", settings.channels), ("providers", settings.providers)):
        if WEBHOOK_CHANNEL in names and settings.events.enabled:
            problems.add(
                f"{table}.{WEBHOOK_CHANNEL}",
                f"the name {WEBHOOK_CHANNEL} belongs to the calls of webhooks; give it another "
                "name, or set events.enabled = false",
            )
    for network in settings.webhooks.allow_private:
        try:
            ip_network(network, strict=False)
        except ValueError:
            problems.wrong(
                "webhooks.allow_private", network, "addresses or networks like 10.1.0.0/16 or ::1"
            )
    most_s = (settings.retention.days - 1) * _DAY_S / 2
    if sum(settings.webhooks.retry_s) > most_s:
        problems.wrong(
            "webhooks.retry_s",
            list(settings.webhooks.retry_s),
            f"delays of together at most half of retention.days less one day ({most_s:g})",
        )


def _priorities(settings: Settings, problems: Problems) -> None:
    max_ttl_s = (settings.retention.days - 1) * _DAY_S
    for name in Priority:
        priority = settings.priorities.of(name)
        if priority.retry_cap_s < priority.retry_base_s:
            problems.wrong(
                f"priorities.{name}.retry_cap_s",
                priority.retry_cap_s,
                f"at least retry_base_s ({priority.retry_base_s:g})",
            )
        if priority.ttl_s > max_ttl_s:
            problems.wrong(
                f"priorities.{name}.ttl_s",
                priority.ttl_s,
                f"at most retention.days less one day ({max_ttl_s})",
            )
