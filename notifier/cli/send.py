"""`send`: submits one notification, and waits until it is final if that is wanted."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.responses import Accepted

_PATH: Final = "/v1/notifications"


def send(
    *,
    channel: Annotated[str, Parameter(name=["--channel", "-c"], help="email, sms, push, ...")],
    recipient: Annotated[
        str,
        Parameter(name=["--recipient", "--to", "-t"], help="Address, phone number or token."),
    ],
    priority: Literal["high", "medium", "low"] = "medium",
    subject: Annotated[
        str | None, Parameter(name=["--subject", "-s"], help="Subject or title.")
    ] = None,
    body: Annotated[str | None, Parameter(name=["--body", "-b"], help="Text.")] = None,
    html: Annotated[str | None, Parameter(help="Text as HTML.")] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="Sender: Shop <shop@example.com>, or a number.")
    ] = None,
    reply_to: Annotated[str | None, Parameter(help="Where replies to an email go.")] = None,
    attach: Annotated[
        list[Path] | None, Parameter(negative="", help="A file of an email; more than once.")
    ] = None,
    data: Annotated[
        dict[str, str] | None, Parameter(help="Data of a push: --data.KEY VALUE.")
    ] = None,
    metadata: Annotated[
        dict[str, str] | None,
        Parameter(help="Your own data, stored with it: --metadata.KEY VALUE."),
    ] = None,
    ttl: Annotated[
        Span | None, Parameter(help="It expires after this: 90s, 15m, 1h30m.", show_default=False)
    ] = None,
    send_at: Annotated[str | None, Parameter(help="Not before this instant (RFC 3339).")] = None,
    time_zone: Annotated[
        str | None, Parameter(help="The recipient's, for quiet hours: Europe/Berlin.")
    ] = None,
    idempotency_key: Annotated[
        str | None, Parameter(help="A repeat with the same key sends nothing.")
    ] = None,
    wait: Annotated[bool, Parameter(negative="", help="Wait until it is final.")] = False,
    timeout: Annotated[Span, Parameter(help="Time-out of --wait.")] = 300.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Submit one notification."""
    content = {
        "subject": subject,
        "body": body,
        "html": html,
        "data": data,
        "from": from_,
        "reply_to": reply_to,
        "attachments": [_attachment(path) for path in attach] if attach else None,
    }
    submit: dict[str, object] = {
        "channel": channel,
        "priority": priority,
        "recipient": recipient,
        "content": _without_none(content),
        **_without_none(
            {
                "ttl_s": ttl,
                "send_at": send_at,
                "time_zone": time_zone,
                "metadata": metadata,
                "idempotency_key": idempotency_key,
            }
        ),
    }
    return run_async(_send(api_url(url), submit, timeout if wait else None, as_json=json))


def _attachment(path: Path) -> Mapping[str, str]:
    """Return the document of a file. Raises ConfigError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"--attach: got {str(path)!r}, expected a file: {error.strerror}"
        raise ConfigError(msg) from error
    content_type = guess_type(path.name)[0] or "application/octet-stream"
    return {
        "filename": path.name,
        "content_type": content_type,
        "data": b64encode(data).decode(),
    }


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


async def _send(
    url: str, submit: Mapping[str, object], timeout_s: float | None, *, as_json: bool
) -> int:
    from notifier.api.responses import Accepted  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415
    from notifier.cli.status import wait_until_final  # noqa: PLC0415

    async with open_client(url) as client:
        accepted = await client.post(_PATH, submit, Accepted)
        if timeout_s is None:
            print_json(accepted) if as_json else print(_accepted_line(accepted))
            return 0
        if not as_json:
            print(_accepted_line(accepted), flush=True)
        return await wait_until_final(client, str(accepted.id), timeout_s, as_json=as_json)


def _accepted_line(accepted: Accepted) -> str:
    segments = f", {accepted.segments} segments" if accepted.segments else ""
    return f"{accepted.id} {accepted.status} on {accepted.queue}{segments}"
