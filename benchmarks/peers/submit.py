"""The submit app of every peer: FastAPI with the route and the document of Notifier."""

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
    """A handler for blocking libraries: FastAPI runs a plain `def` in a pool of 40 threads."""
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
        """Return the process id; the measurement waits until every process has responded."""
        return os.getpid()

    return app
