"""A queue that RabbitMQ refuses, in a running deployment: it is named, and the others are sent."""

from __future__ import annotations

import json

import aiormq

from harness.client import Client, submit_body, until
from harness.system import System

FOREIGN = "email.high"


async def test_one_refused_queue_is_named_the_others_are_sent_and_its_deletion_needs_no_restart(
    system: System, client: Client, vhost_url: str
) -> None:
    async with aiormq.connect(vhost_url) as connection:
        channel = await connection.channel()
        await channel.queue_declare(f"notifier.{FOREIGN}", durable=True)
        system.start_all()
        waiting = await client.submit_one(submit_body(FOREIGN))
        others = [
            await client.submit_one(submit_body(f"{name}.{priority}"))
            for name in ("email", "sms", "push")
            for priority in ("high", "medium", "low")
            if f"{name}.{priority}" != FOREIGN
        ]
        assert await client.all_final(others) == {"sent": len(others)}
        assert (await client.notification(waiting))["status"] == "queued"

        row = await row_of(client, FOREIGN)
        assert row["limited_by"] == "broker"
        assert "PRECONDITION_FAILED" in str(row["limited_by_detail"])
        doctor = system.run("doctor", "--json")
        wrong = [each["check"] for each in json.loads(doctor.stdout) if each["status"] == "wrong"]
        assert wrong == [f"rabbitmq queue {FOREIGN}"]

        await channel.queue_delete(f"notifier.{FOREIGN}")
        assert (await client.final(waiting))["status"] == "sent"
        await until(lambda: row_of(client, FOREIGN), lambda row: row["limited_by"] != "broker")


async def row_of(client: Client, queue: str) -> dict[str, object]:
    rows = await client.items("queues")
    return next(row for row in rows if row["queue"] == queue)
