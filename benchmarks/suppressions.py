"""Measures what suppressions and lookups cost, in pairs on one machine.

`python -m benchmarks.suppressions` starts a Postgres and one API process for each variant, lets wrk
submit to them in turn, and prints the ratio of each to the first. Then it imports 100,000
suppressions and reads lists beside 1,000,000 notifications.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import aiohttp
import asyncpg

from benchmarks.bench.submitting import SCRIPT, wrk
from harness.system import System, running_system, urls
from notifier.adapters.postgres.migrate import migrate
from notifier.domain.credentials import Mode
from notifier.domain.lookups import Lookup, LookupHasher, LookupScope
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.embedded.postgres import PostgresServer, running_postgres

ROUNDS: Final = 5
WARM_S: Final = 2
SPAN_S: Final = 3
SUPPRESSIONS: Final = 1_000_000
IMPORTED: Final = 100_000
STORED: Final = 1_000_000
READS: Final = 200
NO_BROKER: Final = "amqp://guest:guest@127.0.0.1:1/"
REQUEST: Final = """
local before = '{"channel":"email","priority":"medium","recipient":"reader-'
local after = '@example.com","content":{"subject":"Hello","body":"It works."}}'
function request() return wrk.format(nil, nil, nil, before .. math.random(1000000) .. after) end
"""
"""Makes submit.lua write to a million recipients, of whom none is suppressed."""
VARIANTS: Final[Mapping[str, Mapping[str, object]]] = {
    "nothing": {},
    "suppressions": {},
    "lookups of recipients": {"lookups.recipient": "true"},
}
SUPPRESS: Final = """
    INSERT INTO suppressions (id, hash, tenant, mode, channel, topic, recipient, reason, note,
                              created_at, pass_at)
    SELECT gen_random_uuid(), gen_random_uuid(), '', 'live', 'email', '', 'gone-' || n, 'bounce',
           '', now() - interval '1 hour', NULL
    FROM generate_series(1, $1::integer) AS n"""
FILL: Final = """
    INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata, tag)
    SELECT id, now(), now() + interval '1 hour', 'email.low', recipient, '{}', '{}', 'sale'
    FROM unnest($1::uuid[], $2::text[]) AS t (id, recipient)"""
FILL_ATTEMPTS: Final = """
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, provider,
                          outcome, code, detail, reference, tries)
    SELECT id, 1, id, now(), now(), 0, 'smtp', 'accepted', '250', '', '', 1
    FROM unnest($1::uuid[]) AS t (id)"""
FILL_LOOKUPS: Final = """
    INSERT INTO lookups (hash, id) SELECT * FROM unnest($1::uuid[], $2::uuid[])"""
NEW_IDS: Final = """
    SELECT array_agg((left(uuid_at(now() - $1 * interval '1 ms')::text, 14)
                     || '7' || substr(gen_random_uuid()::text, 16))::uuid)
    FROM generate_series(1, $2::integer)"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(
            running_postgres(Path(folder, "postgres"), bin_folder=None, durable=True, keep=False)
        )
        systems = {
            name: stack.enter_context(_system(Path(folder, str(number)), server, number, settings))
            for number, (name, settings) in enumerate(VARIANTS.items())
        }
        asyncio.run(_suppress_many(server.url("variant_1")))
        for system in systems.values():
            system.start_api()
        script = Path(folder, "submit.lua")
        script.write_text(SCRIPT.read_text() + REQUEST)
        _compare_submits(systems, script)
        _import(systems["nothing"], Path(folder, "suppressed.csv"))
        asyncio.run(_read_lists(server.url("variant_2"), systems["lookups of recipients"]))


@contextmanager
def _system(
    folder: Path, server: PostgresServer, number: int, settings: Mapping[str, object]
) -> Iterator[System]:
    asyncio.run(_execute(server.url(), f"CREATE DATABASE variant_{number}"))
    migrate(server.url(f"variant_{number}"))
    named = urls(server.url(f"variant_{number}"), NO_BROKER) | dict(settings)
    with running_system(folder, named) as system:
        yield system


async def _execute(url: str, statement: str, *values: object) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement, *values)
    await connection.close()


async def _suppress_many(url: str) -> None:
    """Store suppressions of other recipients. Random hashes cost as much as real ones."""
    began = time.monotonic()
    await _execute(url, SUPPRESS, SUPPRESSIONS)
    await _execute(url, "VACUUM (ANALYZE) suppressions")
    print(f"{SUPPRESSIONS:,} suppressions stored in {time.monotonic() - began:.0f} s", flush=True)


def _compare_submits(systems: Mapping[str, System], script: Path) -> None:
    for system in systems.values():
        wrk(system.api_url, WARM_S, script)
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(ROUNDS):
        names = list(systems) if number % 2 else list(systems)[::-1]
        for name in names:
            rates[name].append(wrk(systems[name].api_url, SPAN_S, script)["per_s"])
    first = rates[next(iter(systems))]
    for name, found in rates.items():
        ratios = sorted(rate / of for rate, of in zip(found, first, strict=True))
        print(
            f"{name:>22}: {median(found):6,.0f} submits/s, ratio {median(ratios):.3f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def _import(system: System, file: Path) -> None:
    rows = (f"email,old-{number}@example.com,bounce" for number in range(IMPORTED))
    file.write_text("\n".join(["channel,recipient,reason", *rows, ""]))
    began = time.monotonic()
    done = system.run("suppressions", "import", str(file), "--yes")
    took_s = time.monotonic() - began
    print(f"import of {IMPORTED:,}: {took_s:.1f} s: {(done.stdout or done.stderr).strip()}")


async def _read_lists(url: str, system: System) -> None:
    await _fill(url)
    async with aiohttp.ClientSession() as session:
        for query in (
            "recipient=reader-5@example.com",
            "recipient=reader-5@example.com&status=failed",
            "q=reader-7@example.com",
            "tag=sale",
            "tag=sale&status=failed",
            "tag=sale&status=sent&channel=email",
            "tag=none",
            "status=failed",
            "status=sent",
            "",
        ):
            spans = await _read(session, f"{system.api_url}/v1/notifications?{query}")
            p99 = quantiles(spans, n=100)[98]
            print(f"GET ?{query}: p50 {median(spans):.1f} ms, p99 {p99:.1f} ms")


async def _read(session: aiohttp.ClientSession, url: str) -> Sequence[float]:
    spans = []
    for _ in range(READS):
        began = time.perf_counter()
        async with session.get(url) as response:
            await response.read()
            if not response.ok:
                sys.exit(f"{url}: {response.status}")
        spans.append((time.perf_counter() - began) * 1000)
    return spans


async def _fill(url: str) -> None:
    """Store notifications that were sent, 100 recipients each, all with one tag."""
    connection = await asyncpg.connect(url)
    key = await connection.fetchval("SELECT value FROM secrets WHERE name = 'lookups'")
    hasher, scope = LookupHasher(bytes(key)), LookupScope(DEFAULT_TENANT, Mode.LIVE)
    of_tag = hasher.digest(scope, Lookup("tag", "sale"))
    for start in range(0, STORED, 10_000):
        ids = await connection.fetchval(NEW_IDS, (STORED - start) // 10, 10_000)
        recipients = [f"reader-{(start + number) % 10_000}@example.com" for number in range(10_000)]
        hashes = [hasher.digest(scope, Lookup("recipient", each)) for each in recipients]
        await connection.execute(FILL, ids, recipients)
        await connection.execute(FILL_ATTEMPTS, ids)
        await connection.execute(FILL_LOOKUPS, hashes, ids)
        await connection.execute(FILL_LOOKUPS, [of_tag] * len(ids), ids)
    await connection.execute("ANALYZE")
    await connection.close()


if __name__ == "__main__":
    main()
