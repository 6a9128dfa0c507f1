"""Whole processes: a small tenant does not wait for the backlog of a large one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.client import Client, Document, submit_body, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.system import System

LARGE, SMALL = 5000, 10


def mails(tenant: str, count: int) -> Sequence[Document]:
    return [submit_body("email.medium") | {"tenant": tenant} for _ in range(count)]


async def test_ten_mails_of_a_tenant_are_sent_among_the_first_of_five_thousand_of_another(
    system: System, client: Client
) -> None:
    system.start_all()
    first = await client.submit([*mails("large", 1), *mails("small", 1)])
    await client.all_final(first)
    await client.hold("pause", "channel", "email")
    large = await client.submit(mails("large", LARGE))
    small = await client.submit(mails("small", SMALL))
    await client.hold("resume", "channel", "email")
    await until(client.summary, lambda found: found["calls"] >= len(first) + LARGE + SMALL)
    calls = [call["notification_id"] for call in await client.log()]
    last = max(calls.index(id_) for id_ in small)
    assert len(set(large).intersection(calls[:last])) < LARGE / 10
    assert len(calls) == len(set(calls)) == len(first) + LARGE + SMALL
