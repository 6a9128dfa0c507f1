"""Trials of the image: it is small, and it runs without other containers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from deploy.rehearsal import images
from deploy.rehearsal.engine import CommandFailed, docker
from deploy.rehearsal.load import API_ERRORS
from deploy.rehearsal.stack import Stack
from harness.client import Client, open_client, submit_body, until
from harness.figure import Figure
from notifier.embedded.free_ports import free_ports

NAME = "notifier-rehearsal-alone"
MAX_IMAGE_MB = 150


async def image_size(_: Stack) -> Sequence[Figure]:
    size_mb = await asyncio.to_thread(images.megabytes_over_base)
    return [Figure(name="our image over its base", value=size_mb, unit="MB", high=MAX_IMAGE_MB)]


async def runs_alone(_: Stack) -> Sequence[Figure]:
    """`docker run` of the image alone, with a read-only root."""
    api, sandbox = free_ports(2)
    published = (f"--publish=127.0.0.1:{api}:8000", f"--publish=127.0.0.1:{sandbox}:8025")
    arguments = (
        "run",
        "--detach",
        "--rm",
        "--read-only",
        "--cap-drop=ALL",
        "--tmpfs=/tmp",
        f"--name={NAME}",
    )
    started_at = time.monotonic()
    await asyncio.to_thread(docker, *arguments, *published, images.names()[images.OURS])
    try:
        addresses = (f"http://127.0.0.1:{port}" for port in (api, sandbox))
        async with open_client(*addresses) as client:
            await until(lambda: _is_ready(client), bool)
            ready_s = time.monotonic() - started_at
            sent = await client.final(await client.submit_one(submit_body()))
    finally:
        with suppress(CommandFailed):
            await asyncio.to_thread(docker, "stop", "-t", "35", NAME)
    return [
        Figure(name="docker run of the image: ready", value=ready_s, unit="s"),
        Figure(name="... one notification sent", value=int(sent["status"] == "sent"), low=1),
    ]


async def _is_ready(client: Client) -> bool:
    try:
        status, _ = await client.readiness(client.api)
    except API_ERRORS:
        return False
    return status == 200
