"""Judges what checkup.py read from a Postgres: a finding and its fix for each check. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres import (
    blobs,
    controls,
    events,
    fallbacks,
    heartbeat,
    inbox,
    key_rates,
    keys,
    leases,
    operation_steps,
    operations,
    rates,
    reader,
    receipts,
    schedules,
    stats,
    store,
    suppressions,
    templates,
    webhooks,
)
from notifier.domain.breaker import NEEDS_A_PERSON
from notifier.domain.controls import BreakerState, ScopeKind, is_configured
from notifier.domain.finding import Finding, not_checked, ok, warning, wrong
from notifier.scheduling.cluster.membership import MAX_CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from notifier.domain.controls import Breaker, Pause, Scope
    from notifier.ports.queries import WorkerState
    from notifier.ports.store import LostFound, UnconfiguredQueue

REACH: Final = "postgres"
VERSION: Final = "postgres version"
CLOCK: Final = "clock"
DURABILITY: Final = "postgres durability"
MIGRATIONS: Final = "postgres migrations"
RIGHTS: Final = "postgres rights"
DAYS: Final = "postgres partitions"
NOTIFICATIONS: Final = "notifications"
PROCESSES: Final = "processes"
FEATURES: Final = "features"
LEASES: Final = "leases"
CONNECTIONS: Final = "postgres connections"
CHANNELS: Final = "channels"
PAUSES: Final = "pauses"
BREAKERS: Final = "breakers"
DEPLOYMENTS: Final = "deployments"
KEYS: Final = "keys"
SCHEDULES: Final = "schedules"
FALLBACKS: Final = "fallbacks"
RECEIPTS: Final = "receipts"
CONFIGURATION_CHECKS: Final = (
    CHANNELS,
    PAUSES,
    BREAKERS,
    DEPLOYMENTS,
    KEYS,
    SCHEDULES,
    FALLBACKS,
    RECEIPTS,
)

FORGOTTEN_AFTER_S: Final = 3600.0
"""A pause without an end is called forgotten after an hour."""
ENDING_WITHIN_S: Final = 7 * 86_400.0
"""A key is reported this long before it expires."""
MAX_COUNTED_RECEIPTS: Final = 10_000
"""How many receipts that wait are counted."""
UNMATCHED_AFTER_S: Final = 3600.0
"""After this a receipt should have its notification."""
LATE_AFTER_S: Final = 60.0
"""A schedule whose instant came so long ago is not run by anything; fallbacks likewise."""
MAX_NAMED: Final = 10
"""How many schedules are named, and how many notifications."""

MIN_MAJOR_VERSION: Final = 15
MAX_DAYS_AHEAD: Final = 7
"""How far ahead ensure_days() creates partitions. After midnight, until it runs again, one day less
exists."""

_CONNECTIONS_OF_EVERY_PROCESS: Final = (
    store.CONNECTIONS
    + heartbeat.CONNECTIONS
    + leases.CONNECTIONS
    + controls.CONNECTIONS
    + blobs.CONNECTIONS
    + templates.CONNECTIONS
    + operation_steps.CONNECTIONS
    + stats.CONNECTIONS
)
_CONNECTIONS_OF_AN_API: Final = (
    reader.CONNECTIONS
    + keys.CONNECTIONS
    + key_rates.CONNECTIONS
    + suppressions.CONNECTIONS
    + operations.CONNECTIONS
    + schedules.CONNECTIONS
    + events.CONNECTIONS
    + fallbacks.CONNECTIONS
    + receipts.CONNECTIONS
    + webhooks.CONNECTIONS
    + inbox.CONNECTIONS
)
_CONNECTIONS_OF_A_WORKER: Final = (
    rates.CONNECTIONS + webhooks.CALL_CONNECTIONS + inbox.WRITER_CONNECTIONS
)
CONNECTIONS_BY_KIND: Final[Mapping[str, int]] = {
    "api": _CONNECTIONS_OF_EVERY_PROCESS + _CONNECTIONS_OF_AN_API,
    "worker": _CONNECTIONS_OF_EVERY_PROCESS + _CONNECTIONS_OF_A_WORKER,
    "dev": _CONNECTIONS_OF_EVERY_PROCESS + _CONNECTIONS_OF_AN_API + _CONNECTIONS_OF_A_WORKER,
}
"""How many connections a process of each kind opens at most."""

_UNQUOTED_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
_MIGRATE: Final = "run `notifier migrate`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A row of checkup_server.sql.

    `connections` is how many this role may open; `others` is how many other programs have open.
    """

    major: int
    version: str
    is_read_only: bool
    synchronous_commit: str
    role: str
    connections: int
    others: int


@dataclass(frozen=True, slots=True)
class MissingRight:
    """A row of missing_rights.sql. `missing` is None if the table or function does not exist."""

    is_function: bool
    name: str
    missing: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredNames:
    """The names in the settings: what rows and pauses of the database are compared with.

    `asks_for_keys`: whether the API does.
    """

    queues: Sequence[str]
    channels: Sequence[str]
    providers: Sequence[str]
    asks_for_keys: bool = True

    def have(self, scope: Scope) -> bool:
        """Whether the settings have the queue, channel or provider of a pause.

        Tags and tenants are not in the settings.
        """
        names = {
            ScopeKind.QUEUE: self.queues,
            ScopeKind.CHANNEL: self.channels,
            ScopeKind.PROVIDER: self.providers,
        }
        return is_configured(scope, names)


def of_reach(server: Server, shown_url: str) -> Finding:
    """Judge whether a server that responded accepts writes."""
    if server.is_read_only:
        return wrong(
            REACH, f"{shown_url} is read-only", "set NOTIFIER_DATABASE_URL to the primary's URL"
        )
    return ok(REACH, f"{shown_url} responds")


def of_version(server: Server) -> Finding:
    """Judge whether the server has the features that the statements use."""
    if server.major < MIN_MAJOR_VERSION:
        fix = f"upgrade to Postgres {MIN_MAJOR_VERSION} or newer"
        return wrong(VERSION, f"{server.version} is too old", fix)
    return ok(VERSION, server.version)


def of_clock(skew_s: float) -> Finding:
    """Judge the clocks. `skew_s` is how far this machine's is ahead of Postgres's."""
    shown_s = round(skew_s, 1) + 0.0  # no -0.0
    finding = (
        f"this machine's clock differs from Postgres's by {shown_s:+.1f} s; "
        f"at most {MAX_CLOCK_SKEW_S:g} s is allowed"
    )
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        fix = "synchronise both clocks with NTP; until then no process is ready"
        return wrong(CLOCK, finding, fix)
    return ok(CLOCK, finding)


def of_durability(server: Server) -> Finding:
    """Judge whether a commit waits for the disk: a 202 response promises that."""
    finding = f"synchronous_commit is {server.synchronous_commit}"
    if server.synchronous_commit == "off":
        fix = "set synchronous_commit = on where it was set to off: server, database or role"
        return wrong(DURABILITY, f"{finding}: a crash can lose accepted notifications", fix)
    return ok(DURABILITY, finding)


def of_migrations(present: str | None, known: Sequence[str]) -> Finding:
    """Judge the schema: `present` is the database's revision, `known` are all, oldest first."""
    if present is None:
        return wrong(MIGRATIONS, "the database has no Notifier tables", _MIGRATE)
    if present not in known:
        finding = f"the schema is at {present}, which is newer than this version's {known[-1]}"
        return warning(MIGRATIONS, finding, "run the version of Notifier that migrated it")
    if missing := known[known.index(present) + 1 :]:
        return wrong(
            MIGRATIONS, f"the schema is at {present}; not applied: {', '.join(missing)}", _MIGRATE
        )
    return ok(MIGRATIONS, f"the schema is at {present}, the newest")


def of_hidden_migrations(role: str) -> Finding:
    """Return the finding for a role that may not read the schema's revision."""
    because = f"role {role} may not read alembic_version"
    fix = f"GRANT SELECT ON alembic_version TO {_identifier(role)}"
    return not_checked(MIGRATIONS, because, fix)


def of_rights(missing: Sequence[MissingRight], role: str) -> Finding:
    """Judge the role's rights; the fix is the GRANT statements."""
    if absent := [item.name for item in missing if item.missing is None]:
        return wrong(RIGHTS, f"missing: {', '.join(absent)}", _MIGRATE)
    if missing:
        rights = ", ".join(f"{item.missing} on {item.name}" for item in missing)
        return wrong(RIGHTS, f"role {role} lacks {rights}", "; ".join(_grants(missing, role)))
    return ok(RIGHTS, f"role {role} has all required rights")


def of_days(days: Iterable[int]) -> Finding:
    """Judge the partitions. `days` are the days that have one, counted from today."""
    existing = set(days)
    ahead = next(n for n in range(MAX_DAYS_AHEAD + 2) if n not in existing) - 1
    fix = "start a process, which creates them, or run: SELECT ensure_days()"
    if ahead < 0:
        return wrong(DAYS, "none for today: no notification can be stored", fix)
    if ahead < MAX_DAYS_AHEAD - 1:
        finding = f"for today and the next {ahead} days, not {MAX_DAYS_AHEAD}: creation has stopped"
        return warning(DAYS, finding, fix)
    return ok(DAYS, f"for today and the next {ahead} days")


def of_notifications(found: LostFound) -> Finding:
    """Judge whether notifications are lost."""
    if found.lost:
        finding = (
            f"{found.lost} of the newest {found.checked} are lost, the newest is {found.newest}"
        )
        fix = "submit them again: GET /v1/notifications?status=lost lists them; report a bug"
        return wrong(NOTIFICATIONS, finding, fix)
    return ok(NOTIFICATIONS, f"none of the newest {found.checked} of the last 24 hours is lost")


def of_provider_connections(provider: str, workers: int, least: int, most: int) -> Finding:
    """Warn that a provider's server takes fewer connections than `max_connections` allows."""
    found = f"{least}" if least == most else f"{least} to {most}"
    return warning(
        f"provider {provider} connections",
        f"the server takes {found} connections from each of {workers} workers at present",
        f"nothing is lost; raise the server's limit, or lower [providers.{provider}] "
        "max_connections, if its queues are limited_by connections",
    )


def of_processes(counts: Mapping[str, int]) -> Finding:
    """Judge the live processes, counted by kind. A `dev` process is API and worker."""
    listed = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts)) or "none"
    finding = f"alive: {listed}"
    if not counts.get("worker", 0) + counts.get("dev", 0):
        return warning(
            PROCESSES, f"{finding}; without a worker nothing is sent", "start `notifier worker`"
        )
    if not counts.get("api", 0) + counts.get("dev", 0):
        return warning(
            PROCESSES, f"{finding}; without an API nothing is accepted", "start `notifier api`"
        )
    return ok(PROCESSES, finding)


def of_features(workers: Sequence[WorkerState]) -> Finding:
    """Judge whether every worker understands what this version's API accepts."""
    behind = [worker for worker in workers if worker.lacks]
    if not behind:
        return ok(FEATURES, "every worker understands all features of this version")
    named = "; ".join(
        f"the worker on {worker.host} with pid {worker.pid} ({worker.version or 'an old version'}) "
        f"lacks {', '.join(worker.lacks)}"
        for worker in behind
    )
    fix = (
        "finish the upgrade; until then submits with these features get 503, and what was accepted "
        "before such a worker started is sent without them"
    )
    return warning(FEATURES, named, fix)


def of_leases(unheld: Sequence[str], counts: Mapping[str, int]) -> Finding:
    """Judge whether each queue has a worker that publishes it. `unheld` are those without."""
    if not counts.get("worker", 0) + counts.get("dev", 0):
        return ok(LEASES, "no worker is alive that could hold them")
    if unheld:
        finding = f"no worker publishes what is due in {', '.join(unheld)}"
        fix = (
            "a worker acquires a lease within 3 s if its settings have the channel and it reaches "
            "RabbitMQ: check that both is so"
        )
        return warning(LEASES, finding, fix)
    return ok(LEASES, "a worker holds the lease of every queue")


def of_connections(server: Server, counts: Mapping[str, int]) -> Finding:
    """Judge whether the live processes, at least one API and one worker, can connect."""
    live = sum(CONNECTIONS_BY_KIND.get(kind, 0) * count for kind, count in counts.items())
    needed = max(live, CONNECTIONS_BY_KIND["api"] + CONNECTIONS_BY_KIND["worker"])
    allowed = server.connections
    finding = f"{needed} needed, {allowed} allowed, {server.others} of them used by other programs"
    fix = "raise max_connections (or the limit of the role or database), or run fewer processes"
    if needed > allowed:
        return wrong(CONNECTIONS, finding, fix)
    if needed > allowed - server.others:
        return warning(CONNECTIONS, finding, fix)
    return ok(CONNECTIONS, finding)


def of_channels(queues: Sequence[UnconfiguredQueue]) -> Finding:
    """Judge the rows whose channel the settings do not have: nobody sends them."""
    if not queues:
        return ok(CHANNELS, "every notification that waits has a channel of the settings")
    named = ", ".join(
        f"{queue.queue} ({'' if queue.is_exact else 'at least '}{queue.waiting} waiting, "
        f"{queue.sending} sending, the oldest for {_span(queue.age_s)})"
        for queue in queues
    )
    finding = f"no channel of these settings sends {named}"
    fix = "configure the channel again until its notifications are sent; else they expire"
    if any(queue.sending for queue in queues):
        fix += (
            ", except those that are sending: if their worker is dead, only a worker with the "
            "channel recovers them, and until then they and the partitions of their days stay"
        )
    return wrong(CHANNELS, finding, fix)


def of_pauses(pauses: Sequence[Pause], names: ConfiguredNames) -> Finding:
    """Judge the pauses: those that name nothing configured, and those that look forgotten."""
    unmatched = [pause for pause in pauses if not names.have(pause.scope)]
    if unmatched:
        finding = f"the settings do not have what is paused: {_pauses(unmatched)}"
        fix = "pause it by its present name if it must not send, then resume the old name"
        return wrong(PAUSES, finding, fix)
    forgotten = [
        pause for pause in pauses if pause.expires_in_s is None and pause.age_s > FORGOTTEN_AFTER_S
    ]
    if forgotten:
        return warning(
            PAUSES, f"perhaps forgotten: {_pauses(forgotten)}", "`notifier resume` what may send"
        )
    return ok(PAUSES, _pauses(pauses) or "none")


def _pauses(pauses: Sequence[Pause]) -> str:
    return ", ".join(
        f"{pause.scope.kind} {pause.scope.name} for {_span(pause.age_s)}"
        + (f" ({pause.note})" if pause.note else "")
        for pause in pauses
    )


def of_breakers(breakers: Sequence[Breaker], names: ConfiguredNames) -> Finding:
    """Judge the circuit breakers of the settings: through an open one nothing is sent."""
    is_open = [
        breaker
        for breaker in breakers
        if breaker.state is not BreakerState.CLOSED and breaker.provider in names.providers
    ]
    if not is_open:
        return ok(BREAKERS, "all closed")
    named = ", ".join(
        f"{breaker.provider} for {_span(breaker.age_s)}: {breaker.reason} {breaker.code}".rstrip()
        for breaker in is_open
    )
    needs_a_person = any(breaker.reason in NEEDS_A_PERSON for breaker in is_open)
    page = "misconfigured" if needs_a_person else "breaker-open"
    fix = f"`notifier providers` shows the reason; docs/runbook/{page}.md says what to do"
    return warning(BREAKERS, f"open, so that nothing is sent: {named}", fix)


def of_deployments(foreign: Mapping[str, int]) -> Finding:
    """Judge the pointers of other deployments, by queue, of the last minute."""
    if not foreign:
        return ok(DEPLOYMENTS, "no messages of another deployment in the last minute")
    named = ", ".join(f"{count} in {queue}" for queue, count in foreign.items())
    finding = f"another deployment uses this RabbitMQ vhost: in the last minute {named}"
    return wrong(DEPLOYMENTS, finding, "give each deployment its own vhost in NOTIFIER_BROKER_URL")


def of_keys(left_s: Mapping[str, float | None], *, are_asked: bool) -> Finding:
    """Judge the keys that hold, by id with the seconds until each expires; None: never."""
    if not are_asked:
        return ok(KEYS, 'api.auth is "off": whoever reaches the API may do anything')
    if not left_s:
        fix = "make the first one: `notifier keys create --database`"
        return warning(KEYS, "no key holds: the API refuses every request", fix)
    ending = {id_: left for id_, left in left_s.items() if left and left < ENDING_WITHIN_S}
    if ending:
        named = ", ".join(f"{id_} in {_span(left)}" for id_, left in ending.items())
        fix = "make another key for its owner before: `notifier keys create`"
        return warning(KEYS, f"about to expire: {named}", fix)
    return ok(KEYS, f"{len(left_s)} hold")


def of_schedules(count: int, refused: Sequence[str], late: Sequence[str]) -> Finding:
    """Judge the schedules: `count` of them, the ids of those refused last, and of those late."""
    if refused:
        fix = "`notifier schedules list --json` says why: correct its notification, or pause it"
        return warning(SCHEDULES, f"the last run was refused of {_some(refused)}", fix)
    if late:
        finding = f"the instant has come and nothing runs {_some(late)}"
        fix = "start `notifier api`: every API process of this version runs schedules"
        return warning(SCHEDULES, finding, fix)
    return ok(SCHEDULES, f"{count} schedules" if count else "none")


def of_fallbacks(count: int, late: int, named: Sequence[str]) -> Finding:
    """Judge the fallbacks: `count` wait, `late` of them too long, of the notifications `named`."""
    if late:
        finding = f"{late} wait past their time, as that of {', '.join(named[:MAX_NAMED])}"
        fix = (
            "start `notifier api`: every API process of this version submits fallbacks; if one "
            "runs, its log says `fallback_postponed` or `fallbacks_failed`"
        )
        return warning(FALLBACKS, finding, fix)
    return ok(FALLBACKS, f"{count} wait" if count else "none")


def of_receipts(count: int, providers: Sequence[str]) -> Finding:
    """Judge the receipts: `count` have waited for over an hour, of these providers."""
    if not count:
        return ok(RECEIPTS, "all have their notifications")
    number = f"{MAX_COUNTED_RECEIPTS:,} or more" if count >= MAX_COUNTED_RECEIPTS else f"{count:,}"
    return warning(
        RECEIPTS,
        f"{number} receipts of {_some(providers)} have had no notification for an hour",
        "look whether `notifier status` shows the `reference` that the provider reports: the "
        "workers need receipts_secret of the provider, too, or lookups.reference = true",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _span(seconds: float) -> str:
    """A span in its largest unit, rounded down."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _grants(missing: Iterable[MissingRight], role: str) -> list[str]:
    rights_on = defaultdict[str, list[str]](list)
    for item in missing:
        target = f"FUNCTION {item.name}" if item.is_function else item.name
        rights_on[target].append(item.missing or "")
    return [
        f"GRANT {', '.join(rights)} ON {target} TO {_identifier(role)}"
        for target, rights in rights_on.items()
    ]


def _identifier(name: str) -> str:
    return name if _UNQUOTED_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'
