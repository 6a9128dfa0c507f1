"""The limits of this broker and this database, measured with minimal clients."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from benchmarks.bench.children import ChildFailed, run_to_end
from benchmarks.bench.curve import Figures
from benchmarks.bench.place import Place, Servers

SOURCE = Path(__file__).with_name("broker_limit.c")
SPAN_S = 5
ROWS = 500
TABLE = "CREATE TABLE limits (id bigserial PRIMARY KEY, queue text, body text)"
SINGLE = "INSERT INTO limits (queue, body) VALUES ('email.medium', repeat('x', 200));\n"
BATCH = (
    "INSERT INTO limits (queue, body) "
    "SELECT 'email.medium', repeat('x', 200) FROM generate_series(1, :rows);\n"
)


class NotHere(Exception):
    """A tool is missing; the figure is left out with this message."""


def broker(servers: Servers, count: int) -> Figures:
    """Confirmed publishes and acked deliveries per second: one C client, one quorum queue."""
    with servers.place() as place:
        program = _built(place.folder)
        url = urlsplit(place.broker_url)
        words = [str(url.port), unquote(url.path[1:]), str(count)]
        figures: Figures = json.loads(run_to_end([str(program), *words], {}, 120))
    return figures


def database(servers: Servers) -> Figures:
    """Committed rows per second: 16 clients with single rows, 2 clients with 500 rows."""
    with servers.place() as place:
        asyncio.run(_prepare(place))
        return {
            "insert_per_s": _pgbench(place, SINGLE, 16),
            "batch_insert_per_s": _pgbench(place, BATCH, 2) * ROWS,
        }


def _built(folder: Path) -> Path:
    program = folder / "broker_limit"
    compiler = _found("gcc")
    try:
        run_to_end([compiler, "-O2", "-o", str(program), str(SOURCE), "-lrabbitmq"], {}, 60)
    except ChildFailed as error:
        raise NotHere(f"broker_limit.c cannot be built: {error}") from error
    return program


async def _prepare(place: Place) -> None:
    connection = await asyncpg.connect(place.database_url)
    await connection.execute(TABLE)
    await connection.close()


def _pgbench(place: Place, sql: str, clients: int) -> float:
    program = _found("pgbench")
    script = place.folder / "script.sql"
    script.write_text(sql)
    url = urlsplit(place.database_url)
    where = ["-h", parse_qs(url.query)["host"][0], "-U", url.username or "postgres"]
    how = [
        "-n",
        "-c",
        str(clients),
        "-j",
        "1",
        "-T",
        str(SPAN_S),
        "-M",
        "prepared",
        "-D",
        f"rows={ROWS}",
    ]
    words = [program, *where, *how, "-f", str(script), unquote(url.path[1:])]
    said = run_to_end(words, {}, SPAN_S + 30)
    rate = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    assert rate, said
    return float(rate[1])


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise NotHere(f"there is no {program} here")
    return path
