"""Whole processes: people end a wrong campaign, and have what failed sent again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.client import Client, Document, submit_body, until

if TYPE_CHECKING:
    from harness.system import System

WRONG, RIGHT = "wrong-price", "receipts"


def mail(number: int, tag: str, fate: str = "ok") -> Document:
    return submit_body("email.low") | {"recipient": f"{fate}+{number}@example.com", "tag": tag}


async def run(system: System, *words: str, exit_code: int = 0) -> str:
    done = await asyncio.to_thread(system.run, *words)
    assert (done.returncode, done.stderr) == (exit_code, ""), done.stderr
    return done.stdout


async def test_a_wrong_campaign_is_paused_and_cancelled_and_the_right_one_is_sent(
    system: System, client: Client
) -> None:
    system.start_all()
    await client.hold("pause", "channel", "email")
    wrong = await client.submit([mail(n, WRONG) for n in range(300)])
    right = await client.submit([mail(n, RIGHT) for n in range(100)])
    await client.hold("pause", "tag", WRONG)
    await client.hold("resume", "channel", "email")
    await until(client.accepted, lambda called: set(right) <= set(called))
    filters = ("--tag", WRONG)
    found = await run(system, "cancel", *filters, "--note", "wrong price", "--dry-run")
    assert "300 notifications match" in found
    shown = await run(system, "cancel", *filters, "--note", "wrong price", "--yes")
    assert "finished  300 matched  300 cancelled" in shown
    await client.hold("resume", "tag", WRONG)
    statuses = await client.statuses()
    assert {statuses[id_] for id_ in wrong} == {"cancelled"}
    assert not set(wrong) & set(await client.accepted())
    listed = json.loads(await run(system, "operations", "--json"))
    (operation,) = listed["items"]
    assert (operation["kind"], operation["done"], operation["note"]) == (
        "cancel",
        300,
        "wrong price",
    )
    entries = json.loads(await run(system, "audit", "--json"))["items"]
    assert "operation.created" in {entry["action"] for entry in entries}


async def test_what_failed_is_called_once_more_although_two_ask_and_a_worker_dies(
    system: System, client: Client
) -> None:
    system.start_all()
    refused = await client.submit([mail(n, RIGHT, "refuse") for n in range(10)])
    sent = await client.submit([mail(n, RIGHT) for n in range(10)])
    await client.all_final([*refused, *sent])
    asked = {
        "kind": "retry",
        "filter": {"tag": RIGHT, "reason": "refused"},
        "note": "the list was wrong",
        "rate_per_s": 4,
    }
    made = [await client.call("POST", "operations", json=asked) for _ in range(2)]
    worker = system.children[-1]
    await until(client.log, lambda calls: len(calls) > len(refused) + len(sent))
    worker.kill()
    system.start_another_worker()

    async def operations() -> list[Document]:
        return [await client.call("GET", f"operations/{each['id']}") for each in made]

    ended = await until(
        operations, lambda found: {each["status"] for each in found} == {"finished"}
    )
    assert sum(each["done"] for each in ended) == len(refused)

    async def calls() -> Counter[str]:
        return Counter(call["notification_id"] for call in await client.log())

    expected = Counter(dict.fromkeys(refused, 2) | dict.fromkeys(sent, 1))
    await until(calls, lambda found: found == expected)
    await client.all_final(refused)
    assert {(await client.notification(id_))["retried_by"] for id_ in refused} <= {
        each["id"] for each in made
    }


async def test_the_rest_of_an_operation_that_is_stopped_stays_as_it_is(
    system: System, client: Client
) -> None:
    system.start_all()
    refused = await client.submit([mail(n, RIGHT, "refuse") for n in range(12)])
    await client.all_final(refused)
    asked = {"kind": "retry", "filter": {"tag": RIGHT}, "note": "again", "rate_per_s": 1}
    made = await client.call("POST", "operations", json=asked)

    async def progress() -> int:
        found = await client.call("GET", f"operations/{made['id']}")
        return int(found["done"])

    await until(progress, bool)
    shown = await run(system, "operations", made["id"], "--stop")
    assert " stopped " in shown
    stopped: Any = await client.call("GET", f"operations/{made['id']}")
    await client.all_final(refused)
    assert len(await client.log()) == len(refused) + stopped["done"] < 2 * len(refused)


async def test_one_is_cancelled_and_sent_again_by_its_id(system: System, client: Client) -> None:
    system.start_all()
    await client.hold("pause", "channel", "email")
    id_ = await client.submit_one(mail(1, RIGHT))
    assert await run(system, "cancel", id_) == f"{id_} cancelled\n"
    refusal = await asyncio.to_thread(system.run, "retry", id_, "--tag", RIGHT)
    assert (refusal.returncode, "ids or filters" in refusal.stderr) == (2, True)
    assert await run(system, "retry", id_, "--note", "a mistake") == f"{id_} queued\n"
    await client.hold("resume", "channel", "email")
    assert (await client.final(id_))["status"] == "sent"
    again = await asyncio.to_thread(system.run, "retry", id_)
    assert (again.returncode, "submit it again" in again.stderr) == (1, True)
