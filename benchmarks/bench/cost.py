"""What a drain costs: CPU time by process group, WAL bytes, and the share of HOT updates.

Figures: `cpu_us`, the CPU microseconds per notification of the whole system; `cpu_<group>_us`,
those of one process group; `cpu_postgres.<statement>_us`, those of the backends of one statement of
Notifier; `wal_bytes` per notification; `hot_<table>_percent`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files

import asyncpg

from benchmarks.bench.cpu import PROC, Spent, times
from benchmarks.bench.curve import Figures
from benchmarks.bench.place import Place
from benchmarks.bench.submitting import Void

EVERY_S = 1.0
"""Between two readings, for what ends in between. A reading takes some 5 ms of CPU time."""
FIRST, LAST = 0.1, 0.9
RECEIVERS = frozenset({"sandbox", "smtp-sink", "nginx"})
"""Groups that stand for a provider: they are no part of the system."""
POSTGRES = "postgres"
QUERY_LENGTH = 1000
"""Characters of a statement that pg_stat_activity surely keeps (track_activity_query_size)."""
MIN_WAL_BYTES = 100
"""Per notification; the WAL of an idle server is below it."""
MIN_UPDATES = 0.1
"""Per notification; below it a table belongs to no notification."""
ENDED_S = 10.0

WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
ACTIVITY = "SELECT pid, query FROM pg_stat_activity WHERE query <> ''"
CLIENTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
      AND pid <> pg_backend_pid()"""
UPDATES = """
    SELECT regexp_replace(relname, '_[0-9]{8}$', '') AS name,
           sum(n_tup_upd)::bigint AS updates, sum(n_tup_hot_upd)::bigint AS hot
    FROM pg_stat_user_tables GROUP BY 1"""
Updates = Mapping[str, tuple[int, int]]
"""Updates and HOT updates by table; the partitions of a table are added up."""


@dataclass(slots=True)
class Meter:
    """Measures between the 10th and the 90th percentile of `count` completions."""

    place: Place
    count: int
    spent: dict[str, Spent] = field(default_factory=dict)
    began: int = 0
    ended: int = 0
    wal: int = 0
    next_at: float = 0.0
    statements: Mapping[int, str] = field(default_factory=dict)

    def see(self, done: int) -> None:
        """Take readings where they are due. Call it often."""
        if not self.spent:
            if done >= FIRST * self.count and (PROC / "self/schedstat").exists():
                self._begin(done)
        elif not self.ended:
            if done >= LAST * self.count:
                self._end(done)
            elif time.monotonic() > self.next_at:
                self._read()

    def figures(self) -> Figures:
        """Return the figures; empty where nothing could be measured."""
        sends = self.ended - self.began
        if sends <= 0:
            return {}
        by_group = {group: spent.total for group, spent in self.spent.items()}
        figures = cpu_figures(by_group, sends)
        if backends := self.spent.get(POSTGRES):
            figures |= by_statement(backends.by_process, self.statements, sends)
        if (wal := self.wal / sends) >= MIN_WAL_BYTES:
            figures["wal_bytes"] = wal
        return figures

    def _begin(self, done: int) -> None:
        self.wal = -asyncio.run(self.place.rows(WAL))
        self.spent = {group: Spent(times(pids)) for group, pids in self.place.groups().items()}
        self.began = done
        self.next_at = time.monotonic() + EVERY_S

    def _read(self) -> None:
        groups = self.place.groups()
        for group, spent in self.spent.items():
            spent.add(times(groups[group]))
        self.next_at = time.monotonic() + EVERY_S

    def _end(self, done: int) -> None:
        self._read()
        self.ended = done
        self.wal += asyncio.run(self.place.rows(WAL))
        self.statements = asyncio.run(_statements(self.place))


def cpu_figures(spent_ns: Mapping[str, int], sends: int) -> dict[str, float]:
    """Return microseconds per send: of the system, and of each group."""
    us = {group: spent / sends / 1000 for group, spent in spent_ns.items()}
    whole = sum(value for group, value in us.items() if group not in RECEIVERS)
    return {"cpu_us": whole, **{f"cpu_{group}_us": value for group, value in us.items()}}


def by_statement(
    spent_ns: Mapping[int, int], statements: Mapping[int, str], sends: int
) -> dict[str, float]:
    """Return the microseconds per send of Postgres's backends by their statement."""
    found = dict[str, float]()
    for process, spent in spent_ns.items():
        if name := statements.get(process):
            figure = f"cpu_postgres.{name}_us"
            found[figure] = found.get(figure, 0.0) + spent / sends / 1000
    return found


def named(queries: Mapping[int, str], texts: Mapping[str, str]) -> Mapping[int, str]:
    """Return by process the name of the statement that it ran last, where it is one of `texts`."""
    starts = {text[:QUERY_LENGTH]: name for name, text in texts.items()}
    return {
        process: starts[query[:QUERY_LENGTH]]
        for process, query in queries.items()
        if query[:QUERY_LENGTH] in starts
    }


def hot_figures(before: Updates, after: Updates, sends: int) -> Figures:
    """Return the share of HOT updates, in percent, of each table that the sends update."""
    found = dict[str, float]()
    for table, (updates, hot) in after.items():
        were_updates, were_hot = before.get(table, (0, 0))
        if (since := updates - were_updates) >= MIN_UPDATES * sends:
            found[f"hot_{table}_percent"] = 100 * (hot - were_hot) / since
    return found


async def updates(place: Place) -> Updates:
    """Return the updates so far, once no process is connected: a backend reports when it ends."""
    connection = await asyncpg.connect(place.database_url)
    try:
        deadline = time.monotonic() + ENDED_S
        while clients := await connection.fetchval(CLIENTS):
            if time.monotonic() > deadline:
                raise Void(f"{clients} processes are still connected to Postgres")
            await asyncio.sleep(0.1)
        rows = await connection.fetch(UPDATES)
    finally:
        await connection.close()
    return {row["name"]: (row["updates"], row["hot"]) for row in rows}


async def _statements(place: Place) -> Mapping[int, str]:
    connection = await asyncpg.connect(place.database_url)
    try:
        rows = await connection.fetch(ACTIVITY)
    finally:
        await connection.close()
    return named({row["pid"]: row["query"] for row in rows}, dict(_texts()))


def _texts() -> Iterable[tuple[str, str]]:
    """Return Notifier's statements by name."""
    for path in files("notifier.adapters.postgres").joinpath("sql").iterdir():
        if path.name.endswith(".sql"):
            yield path.name.removesuffix(".sql"), path.read_text(encoding="utf-8")
