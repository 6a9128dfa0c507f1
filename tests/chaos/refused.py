"""A row that Postgres refuses to write: one row in a full message, as a fault of its data would."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg

from harness.client import submit_body, until
from harness.run import TooFewInFlight
from harness.statuses import UNCLAIMED, on_statuses
from tests.chaos.backlog import BATCH, MANY, backlog_bodies, submit_backlog
from tests.chaos.processes import PROCESS_S
from tests.chaos.round import Fault, Round
from tests.chaos.trace import Key, Kind, keys_of, of_kind
from tests.chaos.traced import FAST, FULL, Answer

CLAIM, RECORD, GIVE_BACK = "claim", "record", "give back"
LEAST_MS, FEW_MS = 5, 20
"""The times of a call of the backlog."""
UNBEGUN_S: Final = 0.5
"""A row that was claimed so long ago while all calls hang goes back before a consumer is free."""
TRIES: Final = 77
"""The `max_tries` by which Postgres knows the row."""
WITHIN_S: Final = 60.0
REFUSE: Final = """
    CREATE SEQUENCE refusals;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM nextval('refusals');  -- is not undone by the error
        RAISE EXCEPTION 'refused' USING ERRCODE = '23514';
    END $$;
    CREATE TRIGGER refuse BEFORE {event} ON live FOR EACH ROW WHEN ({when})
        EXECUTE FUNCTION refuse()
"""
ALLOW: Final = "DROP FUNCTION refuse CASCADE; DROP SEQUENCE refusals"
CALLS: Final[Mapping[str, int]] = {CLAIM: 0, RECORD: 2, GIVE_BACK: 1}
"""How often the row is called in a round of each variant."""


async def row_refused(round_: Round) -> float:
    """Let Postgres refuse one write of one row, whose worker must live on."""
    strike = {CLAIM: _claim, RECORD: _record, GIVE_BACK: _give_back}[round_.variant]
    return await strike(round_)


async def _claim(round_: Round) -> float:
    when = f"NEW.claimed_by <> '{UNCLAIMED}' AND NEW.max_tries = {TRIES}"
    async with _refusing(round_, "UPDATE", when):
        row = await _submit_amid_others(round_)
        await _all_others_sent(round_, row, "failed")
    round_.excused.add(row)
    (end,) = await round_.arena.run.rows("SELECT reason, code FROM ends WHERE id = $1", UUID(row))
    round_.require(f"it failed as {tuple(end)}", holds=tuple(end) == ("poison", "claim_rejected"))
    _check_row(round_, row)
    return time.time()


async def _record(round_: Round) -> float:
    """Stop the worker that keeps the row: only its peers may say that it was perhaps sent."""
    async with _refusing(round_, "DELETE", f"OLD.max_tries = {TRIES}"):
        row = await _submit_amid_others(round_)
        await _all_others_sent(round_, row, "sending")
    run = round_.arena.run
    sql = "SELECT w.pid FROM live JOIN workers w ON w.id = claimed_by WHERE live.id = $1"
    pid = await run.number(sql, UUID(row))
    (keeper,) = [child for child in run.workers if child.pid == pid]
    await round_.arena.join()
    await run.stop(keeper)
    stopped_at = time.time()
    await until(lambda: _status(round_, row), lambda status: status == "sent", WITHIN_S)
    marked = row in await run.ambiguous()
    round_.require("its second send has no mark", holds=marked)
    _check_row(round_, row)
    return stopped_at


async def _give_back(round_: Round) -> float:
    """Let the provider hang, so that rows that were claimed and not begun go back."""
    await submit_backlog(round_, 4, LEAST_MS)
    await round_.aim("queued", "sending")
    round_.trace.set_answer(Answer.HANG)
    try:
        row = (await until(lambda: _unbegun(round_), bool, WITHIN_S))[0].id
        when = (
            f"OLD.claimed_by <> '{UNCLAIMED}' AND NEW.claimed_by = '{UNCLAIMED}' AND NEW.class = 0"
        )
        async with _refusing(round_, "UPDATE", f"{when} AND NEW.id = '{row}'"):
            await until(lambda: _refused_or_called(round_, row), bool, WITHIN_S)
            if not await _refusals(round_):
                raise TooFewInFlight("the call of the row had begun")
            round_.trace.set_answer(Answer.AS_USUAL)
            await _all_others_sent(round_, row, "sending")
    finally:
        round_.trace.set_answer(Answer.AS_USUAL)
    allowed_at = time.time()
    await until(lambda: _status(round_, row), lambda status: status == "sent", WITHIN_S)
    _check_row(round_, row)
    return allowed_at


@asynccontextmanager
async def _refusing(round_: Round, event: str, when: str) -> AsyncIterator[None]:
    """Refuse the writes of `live` that match; the workers of the beginning must live at the end."""
    workers = list(round_.arena.run.workers)
    connection = await asyncpg.connect(round_.arena.place.database)
    try:
        await connection.execute(REFUSE.format(event=event, when=when))
        try:
            yield
            refusals = await _refusals(round_)
        finally:
            await connection.execute(ALLOW)
    finally:
        await connection.close()
    round_.found.append(f"refused {refusals:g} times")
    round_.require("nothing was refused", holds=refusals > 0)
    ended = sum(not child.is_running for child in workers)
    round_.require(f"{ended} workers ended", holds=not ended)


async def _submit_amid_others(round_: Round) -> str:
    """Submit the row amid a thousand others behind a backlog; returns its id."""
    await submit_backlog(round_, 2, FEW_MS)
    bodies = backlog_bodies(BATCH, FEW_MS)
    bodies[BATCH // 2] = submit_body(str(FULL), recipient=f"{FAST}{FEW_MS}", max_tries=TRIES)
    row = (await round_.load.submit(bodies))[BATCH // 2]
    await round_.aim("queued", "sending")
    return row


async def _all_others_sent(round_: Round, row: str, status: str) -> None:
    """Wait until the rest of the backlog is sent and the row has this status."""
    others = [which for which, fate in round_.load.accepted.items() if fate == "ok"]
    sql = on_statuses(
        """SELECT count(*) FROM statuses
           WHERE id = ANY($1) AND id <> $2 AND queue = $3 AND status <> 'sent'"""
    )

    async def left() -> float:
        return await round_.arena.run.number(sql, [*map(UUID, others)], UUID(row), str(FULL))

    await until(left, lambda count: not count, WITHIN_S)
    await until(lambda: _status(round_, row), lambda found: found == status, WITHIN_S)


async def _status(round_: Round, row: str) -> str:
    sql = on_statuses("SELECT status FROM statuses WHERE id = $1")
    (found,) = await round_.arena.run.rows(sql, UUID(row))
    return str(found["status"])


async def _refusals(round_: Round) -> float:
    sql = "SELECT coalesce(max(last_value), 0) FROM refusals WHERE is_called"
    return await round_.arena.run.number(sql)


async def _refused_or_called(round_: Round, row: str) -> bool:
    called = {key.id for key in keys_of(round_.trace.events(), Kind.CALLED)}
    return row in called or await _refusals(round_) > 0


async def _unbegun(round_: Round) -> list[Key]:
    """Return rows that were claimed UNBEGUN_S ago and have not begun, the last claimed first."""
    sending = {Key(*each) for each in await round_.arena.run.sending()}
    events = round_.trace.events()
    claimed = [
        key
        for event in of_kind(events, Kind.CLAIMED)
        for key in event.keys
        if event.at < time.time() - UNBEGUN_S
    ]
    called = keys_of(events, Kind.CALLED)
    full = {
        key.id
        for event in of_kind(events, Kind.MESSAGE)
        for key in event.keys
        if event.where == str(FULL) and len(event.keys) >= MANY
    }
    return [
        key for key in reversed(claimed) if key in sending and key not in called and key.id in full
    ]


def _check_row(round_: Round, row: str) -> None:
    """Check how often the row was called. Raises TooFewInFlight if it was in no full message."""
    events = round_.trace.events()
    sizes = [
        len(event.keys)
        for event in of_kind(events, Kind.MESSAGE)
        if row in {key.id for key in event.keys}
    ]
    if max(sizes, default=0) < MANY:
        raise TooFewInFlight(f"the row's messages have {sizes} pointers")
    calls = sum(event.keys[0].id == row for event in of_kind(events, Kind.CALLED))
    text = f"the row's messages had {sizes} pointers; it was called {calls} times"
    round_.found.append(text)
    round_.require(text, holds=calls == CALLS[round_.variant])


REFUSED: Final = (
    Fault(
        strike=row_refused,
        variants=(CLAIM, RECORD, GIVE_BACK),
        timeout_s=PROCESS_S,
        traced=True,
        text="Postgres refuses (SQLSTATE 23514) the claim, the record or the give-back of one row "
        "of a message of 64. All others are sent, and no worker ends. The row fails as `poison`; "
        "or it is sent again, with a mark, once its worker has stopped; or it is sent once it can "
        "be given back. Counted from the end of the refusal, or from that stop.",
    ),
)
