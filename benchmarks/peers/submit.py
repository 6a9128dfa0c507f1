"""The submit app of every peer: FastAPI, the same route and the same document as Notifier's."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel


class Content(BaseModel):
    subject: str = ""
    body: str = ""
    data: dict[str, Any] = {}


class Notification(BaseModel):
    channel: str
    priority: Literal["high", "medium", "low"] = "medium"
    recipient: str
    content: Content


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def threaded_app(enqueue: Callable[[dict[str, Any]], str]) -> FastAPI:
    """For libraries that block: FastAPI runs a plain `def` in its pool of 40 threads."""
    app = _app(None)

    @app.post("/v1/notifications", status_code=202)
    def submit(notification: Notification) -> dict[str, str]:
        return {"id": enqueue(notification.model_dump()), "status": "queued"}

    return app


def async_app(enqueue: Callable[[dict[str, Any]], Awaitable[str]], lifespan: Lifespan) -> FastAPI:
    app = _app(lifespan)

    @app.post("/v1/notifications", status_code=202)
    async def submit(notification: Notification) -> dict[str, str]:
        return {"id": await enqueue(notification.model_dump()), "status": "queued"}

    return app


def _app(lifespan: Lifespan | None) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/pid")
    async def pid() -> int:
        """Which process answers: the measurer waits until it has met all of them."""
        return os.getpid()

    return app
