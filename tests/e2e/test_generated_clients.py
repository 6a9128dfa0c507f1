"""Clients that tools make from the OpenAPI document submit, find and page at the real API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from harness.system import System, running_system, urls

PROGRAMS: Final = Path(sys.executable).parent
ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "tests/e2e/typescript"
MODULES: Final = ROOT / ".cache/typescript/node_modules"
TAG: Final = "summer-sale"
PYTHON: Final = """
import json, sys
from client import AuthenticatedClient
from client.api.notifications import get_notification, list_notifications, submit, submit_batch
from client.models import Batch, Content, ContentDataType0, GetNotificationIncludeItem
from client.models import Problem, Submit, SubmitChannel, SubmitMetadataType0

url, key, tag = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)
content = Content(subject="Hello", data=ContentDataType0.from_dict({"a": [1, {"b": None}]}))
order = Submit(
    channel=SubmitChannel.EMAIL,
    recipient="ada@example.com",
    content=content,
    metadata=SubmitMetadataType0.from_dict({"order": 7}),
    tag=tag,
)
first, again = (
    submit.sync_detailed(client=client, body=order, idempotency_key=f"{tag}-1") for _ in range(2)
)
batch = submit_batch.sync(client=client, body=Batch(notifications=[order] * 4))
refused = submit.sync(
    client=client, body=Submit(channel=SubmitChannel.SMS, recipient="1", content=content)
)
assert isinstance(refused, Problem)
found = get_notification.sync(
    id=first.parsed.id, client=client, include=[GetNotificationIncludeItem.CONTENT]
)
pages, cursor = [], {}
while cursor is not None:
    page = list_notifications.sync(client=client, tag=[tag], limit=2, **cursor)
    pages.append([str(item.id) for item in page.items])
    cursor = {"cursor": page.next_cursor} if page.next_cursor else None
print(json.dumps({
    "ids": [str(accepted.id) for accepted in (first.parsed, *batch.results)],
    "again": str(again.parsed.id),
    "replayed": ["Idempotent-Replayed" in answer.headers for answer in (first, again)],
    "refused": refused.errors[0].field,
    "found": {
        "queue": found.queue,
        "metadata": found.metadata.to_dict(),
        "content": found.content.to_dict(),
    },
    "pages": pages,
}))
"""


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    """An API that asks for keys; nothing sends."""
    settings = urls(database_url, vhost_url) | {"api.auth": "keys"}
    with running_system(system_folder, settings) as system:
        system.start_api()
        yield system


@pytest.fixture
def key(system: System) -> str:
    return system.run("keys", "create", "--database").stdout.strip()


@pytest.fixture
def document(system: System, tmp_path: Path) -> Path:
    with urlopen(f"{system.api_url}/docs/openapi.json") as response:  # noqa: S310 our own port
        (tmp_path / "openapi.json").write_bytes(response.read())
    return tmp_path / "openapi.json"


def test_a_generated_python_client_submits_finds_and_pages(
    system: System, key: str, document: Path
) -> None:
    generated = run(
        document.parent,
        *(PROGRAMS / "openapi-python-client", "generate", "--path", document),
        *("--output-path", "client", "--meta", "none"),
    )
    # The client has no CSV files of suppressions; everything else of the document it has.
    warned = generated.stdout + generated.stderr
    assert warned.count("WARNING") == warned.count("Unsupported content type text/csv") == 1
    program = (sys.executable, "-c", PYTHON)
    check(run(document.parent, *program, system.api_url, key, TAG))


def test_a_generated_typescript_client_has_strict_types_and_submits_finds_and_pages(
    system: System, key: str, document: Path
) -> None:
    assert MODULES.exists(), "run deploy/install-typescript"
    shutil.copytree(SOURCES, document.parent, dirs_exist_ok=True)
    (document.parent / "node_modules").symlink_to(MODULES)
    tools = MODULES / ".bin"
    run(document.parent, tools / "openapi-typescript", document, "--output", "schema.d.ts")
    run(document.parent, tools / "tsc")
    check(run(document.parent, PROGRAMS / "node", "client.ts", system.api_url, key, TAG))


def check(ran: subprocess.CompletedProcess[str]) -> None:
    said: dict[str, Any] = json.loads(ran.stdout)
    ids = said["ids"]
    assert len(set(ids)) == 5
    assert (said["again"], said["replayed"]) == (ids[0], [False, True])
    assert said["refused"] == "recipient"
    assert said["found"] == {
        "queue": "email.medium",
        "metadata": {"order": 7},
        "content": {"subject": "Hello", "data": {"a": [1, {"b": None}]}},
    }
    newest_first = sorted(ids, reverse=True)
    assert said["pages"] == [newest_first[:2], newest_first[2:4], newest_first[4:]]


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran
