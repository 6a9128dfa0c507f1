"""What is to be said of a Postgres, and how to mend it. Pure: checkup.py asks."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.reader import READ_LINKS
from notifier.adapters.postgres.store import StoreConnections
from notifier.domain.finding import Finding, doubtful, fine, unchecked, wrong
from notifier.scheduling.cluster.membership import MAX_CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REACH: Final = "postgres"
VERSION: Final = "postgres version"
CLOCK: Final = "clock"
DURABILITY: Final = "postgres durability"
MIGRATIONS: Final = "postgres migrations"
RIGHTS: Final = "postgres rights"
DAYS: Final = "postgres partitions"
PROCESSES: Final = "processes"
CONNECTIONS: Final = "postgres connections"

MIN_MAJOR_VERSION: Final = 15
DAYS_AHEAD: Final = 7
"""What ensure_days() makes; one less is there until it runs again after midnight."""

_EVERY: Final = (
    len(StoreConnections._fields) + 1 + 2
)  # the store's, the heartbeat's, those of the controls
HELD_BY: Final[Mapping[str, int]] = {
    "api": _EVERY + READ_LINKS,
    "worker": _EVERY + 1,  # the rates'
    "dev": _EVERY + READ_LINKS + 1,
}
"""The connections that a process of each kind opens at most."""

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")
_MIGRATE: Final = "run `notifier migrate`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A row of checkup_server.sql. `connections` are those this role may have, `others` in use."""

    major: int
    version: str
    is_read_only: bool
    synchronous_commit: str
    role: str
    connections: int
    others: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """A row of checkup_rights.sql: without `lacking` the thing itself is not there."""

    is_function: bool
    name: str
    lacking: str | None


def of_reach(server: Server, place: str) -> Finding:
    """It answered; whether it can be written to."""
    if server.is_read_only:
        return wrong(
            REACH, f"{place} can only be read", "let NOTIFIER_DATABASE_URL name the primary"
        )
    return fine(REACH, f"{place} answers")


def of_version(server: Server) -> Finding:
    """Old enough to lack what the statements use, or not."""
    if server.major < MIN_MAJOR_VERSION:
        fix = f"upgrade to Postgres {MIN_MAJOR_VERSION} or newer"
        return wrong(VERSION, f"{server.version} is too old", fix)
    return fine(VERSION, server.version)


def of_clock(skew_s: float) -> Finding:
    """`skew_s` is how far this machine's clock is ahead of Postgres's."""
    shown_s = round(skew_s, 1) + 0.0  # no -0.0
    said = f"this machine is {shown_s:+.1f} s off Postgres, at most {MAX_CLOCK_SKEW_S:g} s allowed"
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        return wrong(CLOCK, said, "let NTP set the clocks of both: until then no process is ready")
    return fine(CLOCK, said)


def of_durability(server: Server) -> Finding:
    """Whether a commit waits for the disk, which a 202 promises."""
    said = f"synchronous_commit is {server.synchronous_commit}"
    if server.synchronous_commit == "off":
        fix = "set synchronous_commit = on where it was turned off: server, database or role"
        return wrong(DURABILITY, f"{said}: what was accepted can be lost in a crash", fix)
    return fine(DURABILITY, said)


def of_migrations(present: str | None, known: Sequence[str]) -> Finding:
    """`present` is the database's revision; `known` are ours, oldest first."""
    if present is None:
        return wrong(MIGRATIONS, "there are no tables of ours", _MIGRATE)
    if present not in known:
        said = f"the database is at {present}, which is newer than this version's {known[-1]}"
        return doubtful(MIGRATIONS, said, "run the version of Notifier that migrated it")
    if missing := known[known.index(present) + 1 :]:
        return wrong(MIGRATIONS, f"at {present}, not applied: {', '.join(missing)}", _MIGRATE)
    return fine(MIGRATIONS, f"at {present}, the newest")


def of_hidden_migrations(role: str) -> Finding:
    """The role may do its work, and not look at the revision."""
    because = f"role {role} may not read alembic_version"
    fix = f"GRANT SELECT ON alembic_version TO {_identifier(role)}"
    return unchecked(MIGRATIONS, because, fix)


def of_rights(lacks: Sequence[Lack], role: str) -> Finding:
    """What the role lacks, and the GRANTs that give it."""
    if absent := [lack.name for lack in lacks if lack.lacking is None]:
        return wrong(RIGHTS, f"not there: {', '.join(absent)}", _MIGRATE)
    if lacks:
        said = ", ".join(f"{lack.lacking} on {lack.name}" for lack in lacks)
        return wrong(RIGHTS, f"role {role} lacks {said}", "; ".join(_grants(lacks, role)))
    return fine(RIGHTS, f"role {role} has all it needs")


def of_days(days: Iterable[int]) -> Finding:
    """`days` are those, counted from today, that have their partitions."""
    there = set(days)
    ahead = next(n for n in range(DAYS_AHEAD + 2) if n not in there) - 1
    fix = "start a process, which makes them, or run: SELECT ensure_days()"
    if ahead < 0:
        return wrong(DAYS, "none for today: nothing can be stored", fix)
    if ahead < DAYS_AHEAD - 1:
        said = f"for today and {ahead} days more, of {DAYS_AHEAD}: none were made lately"
        return doubtful(DAYS, said, fix)
    return fine(DAYS, f"for today and {ahead} days more")


def of_processes(counts: Mapping[str, int]) -> Finding:
    """Who beats, by kind; `dev` accepts and sends."""
    said = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts)) or "none"
    said = f"alive: {said}"
    if not counts.get("worker", 0) + counts.get("dev", 0):
        return doubtful(
            PROCESSES, f"{said}; without a worker nothing is sent", "start `notifier worker`"
        )
    if not counts.get("api", 0) + counts.get("dev", 0):
        return doubtful(
            PROCESSES, f"{said}; without an API nothing is accepted", "start `notifier api`"
        )
    return fine(PROCESSES, said)


def of_connections(server: Server, counts: Mapping[str, int]) -> Finding:
    """Whether those alive, or at least an API and a worker, may open all that they use."""
    alive = sum(HELD_BY.get(kind, 0) * count for kind, count in counts.items())
    need, room = max(alive, HELD_BY["api"] + HELD_BY["worker"]), server.connections
    said = f"{need} needed, {room} allowed, {server.others} of them taken by others"
    fix = "raise max_connections (or the limit of the role or database), or run fewer processes"
    if need > room:
        return wrong(CONNECTIONS, said, fix)
    if need > room - server.others:
        return doubtful(CONNECTIONS, said, fix)
    return fine(CONNECTIONS, said)


def _grants(lacks: Iterable[Lack], role: str) -> list[str]:
    rights = defaultdict[str, list[str]](list)
    for lack in lacks:
        thing = f"FUNCTION {lack.name}" if lack.is_function else lack.name
        rights[thing].append(lack.lacking or "")
    return [
        f"GRANT {', '.join(some)} ON {thing} TO {_identifier(role)}"
        for thing, some in rights.items()
    ]


def _identifier(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'
