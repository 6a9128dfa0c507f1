"""What must hold of the settings, and between them, that the type of none can say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from notifier.domain.notification import Priority
from notifier.settings.problems import Problems, did_you_mean
from notifier.settings.tree import BROKER_URL, DATABASE_URL, Settings
from notifier.settings.urls import broker_url_faults, database_url_faults

_DAY_S: Final = 86_400


def check(settings: Settings, problems: Problems) -> None:
    """Adds a problem for each URL no driver can use, and each pair that cannot stand together."""
    _url("database.url", settings.database.url, DATABASE_URL, database_url_faults, problems)
    _url("broker.url", settings.broker.url, BROKER_URL, broker_url_faults, problems)
    _channels(settings, problems)
    _priorities(settings, problems)
    if settings.worker.send_timeout_s >= settings.worker.grace_s:
        problems.wrong(
            "worker.send_timeout_s",
            settings.worker.send_timeout_s,
            f"less than worker.grace_s ({settings.worker.grace_s:g}), "
            "or a stop would cut what is being sent",
        )


def _url(
    key: str,
    url: str,
    expected: str,
    faults_of: Callable[[str], Iterable[str]],
    problems: Problems,
) -> None:
    if url and (faults := list(faults_of(url))):
        problems.wrong(key, url, f"{expected}: {'; '.join(faults)}")


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


def _priorities(settings: Settings, problems: Problems) -> None:
    longest = (settings.retention.days - 1) * _DAY_S
    for name in Priority:
        priority = settings.priorities.of(name)
        if priority.retry_cap_s < priority.retry_base_s:
            problems.wrong(
                f"priorities.{name}.retry_cap_s",
                priority.retry_cap_s,
                f"at least retry_base_s ({priority.retry_base_s:g})",
            )
        if priority.ttl_s > longest:
            problems.wrong(
                f"priorities.{name}.ttl_s",
                priority.ttl_s,
                f"at most retention.days less one day ({longest})",
            )
