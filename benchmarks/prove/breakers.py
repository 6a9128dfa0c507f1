"""Breaker figures: the SMS provider returns errors or refuses our credentials."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.prove.load import steady
from benchmarks.prove.metrics import total
from harness.client import submit_body, until
from harness.figure import Figure, never
from harness.judge import instants
from harness.run import Run
from harness.stack import Stack
from harness.statuses import on_statuses

ALL_FAIL = {"channel": "sms", "error_share": 1.0}
PROTECTED = {"channel": "sms", "password": "right"}
BROKEN_S = 60.0
LONE_S = 12.0
HEALS_WITHIN_S = 300.0
SMS = ("sms.high", "sms.medium")


async def provider_fails(stack: Stack) -> Sequence[Figure]:
    async with stack.running(workers=2) as run:
        open_s, ids = await _broken(run, rate=50)
        await run.client.set_behaviour()
        await run.all_final(timeout_s=HEALS_WITHIN_S)
        unsent, misspent = await run.not_sent(ids), await _misspent(run)
    return [
        Figure(name="SMS fails, 50/s: breaker open after", value=open_s, unit="s", high=10),
        never("... tries without a call, or calls without a try", misspent),
        never("... not sent after it healed", unsent),
    ]


async def provider_fails_slowly(stack: Stack) -> Sequence[Figure]:
    async with stack.running() as run:
        open_s, _ = await _broken(run, rate=1, span_s=15)
        await run.client.set_behaviour()
        await run.all_final(timeout_s=HEALS_WITHIN_S)
    return [Figure(name="SMS fails, 1/s: breaker open after", value=open_s, unit="s", high=10)]


async def one_failure(stack: Stack) -> Sequence[Figure]:
    async with stack.running() as run:
        await run.client.set_behaviour(**ALL_FAIL)
        which = await run.client.submit_one(submit_body("sms.high"))
        await run.client.wait_for_calls(1)
        await run.client.set_behaviour()
        await run.client.final(which)
        await asyncio.sleep(LONE_S)
        openings = await _openings(run)
        failed = sum(not call["accepted"] for call in await run.client.calls(which))
    return [
        never("one lone 5xx: breakers opened", openings),
        Figure(name="... failures before it was sent", value=failed, low=1, high=1, always=True),
    ]


async def wrong_credentials(stack: Stack) -> Sequence[Figure]:
    secret = stack.folder / "twilio_token"
    secret.write_text("wrong")
    async with stack.running(
        providers__twilio__username="AC1", providers__twilio__password_file=secret
    ) as run:
        await run.client.set_behaviour(**PROTECTED)
        open_s, ids = await _broken(run, rate=50, span_s=15, behave=False)
        tries = await run.number(on_statuses("SELECT max(tries) FROM statuses"))
        named = await _openings(run, provider="twilio", reason="credentials")
        logged = _says_why(run)
        before = [child.pid for child in run.system.children]
        secret.write_text("right")
        await run.all_final(timeout_s=HEALS_WITHIN_S)
        unsent = await run.not_sent(ids)
        is_same = before == [child.pid for child in run.system.children if child.is_running]
    return [
        Figure(name="wrong credentials: breaker open after", value=open_s, unit="s", high=5),
        never("... most tries spent", tries),
        Figure(name="... openings in the metric", value=named, low=1, always=True),
        Figure(name="... log lines about it", value=logged, low=1, always=True),
        never("... not sent with the new file", unsent),
        never("... restarts", not is_same),
    ]


async def _broken(
    run: Run, *, rate: float, span_s: float = BROKEN_S, behave: bool = True
) -> tuple[float, list[str]]:
    """Let the provider fail under load; return the seconds until the breaker opened, and ids."""
    if behave:
        await run.client.set_behaviour(**ALL_FAIL)
    async with asyncio.TaskGroup() as group:
        load = group.create_task(steady(run.client, SMS, rate=rate, span_s=span_s))
        await until(lambda: _open(run), bool, span_s)
        opened_at = time.time()
    return opened_at - instants(await run.client.log())[0], list(load.result())


async def _open(run: Run) -> float:
    return await total(run.workers, "notifier_breaker", provider="twilio", state="open")


async def _openings(run: Run, **labels: str) -> float:
    return await total(run.workers, "notifier_breaker_openings", **labels)


async def _misspent(run: Run) -> int:
    """Count the notifications whose tries differ from the calls in the sandbox's log."""
    called = Counter(call["notification_id"] for call in await run.client.log())
    rows = await run.rows(on_statuses("SELECT id, tries FROM statuses"))
    return sum(row["tries"] != called[str(row["id"])] for row in rows)


def _says_why(run: Run) -> int:
    words = ("breaker_opened", "twilio", "credentials")
    lines = (line for child in run.workers for line in child.log.read_text().splitlines())
    return sum(all(word in line for word in words) for line in lines)
