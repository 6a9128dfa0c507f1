"""`keys` and `tenants` on the database itself, for the first key and for a lost one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from notifier.domain.credentials import NO_CREDENTIAL, parse_credential

TIMEOUT_S = 60


class Cli:
    """Runs commands with the test's database in the environment."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")
        } | {"NOTIFIER_DATABASE_URL": url}

    def run(self, *words: str, code: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "notifier", *words],
            cwd=self._folder,
            env=self._environ | environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, done
        return done

    def json(self, *words: str) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.run(*words, "--json").stdout)
        return document


@pytest.fixture
def cli(tmp_path: Path, database_url: str) -> Cli:
    return Cli(tmp_path, database_url)


async def test_the_first_key_is_the_only_line_on_stdout_and_may_do_everything(cli: Cli) -> None:
    done = cli.run("keys", "create", "--database", "--note", "first")
    credential = parse_credential(done.stdout.rstrip("\n"))
    assert credential is not NO_CREDENTIAL
    assert credential.secret not in done.stderr
    assert credential.id in done.stderr
    listed = cli.json("keys", "list", "--database")
    assert isinstance(listed["items"], list)
    [key] = listed["items"]
    assert (key["id"], key["tenant"], key["mode"]) == (credential.id, None, "live")
    assert (key["scopes"], key["rate_per_s"], key["note"]) == (["submit", "admin"], None, "first")
    assert re.fullmatch(r"cli:.+@.+", key["created_by"])
    assert credential.secret not in json.dumps(listed)


def test_a_first_key_is_made_once(cli: Cli) -> None:
    words = ("keys", "create", "--database", "--if-none")
    first = parse_credential(cli.run(*words).stdout.strip())
    again = cli.run(*words)
    assert (again.stdout, first.id in again.stderr) == ("", True)
    listed = cli.json("keys", "list", "--database")["items"]
    assert isinstance(listed, list)
    assert [key["id"] for key in listed] == [first.id]


async def test_a_key_of_a_tenant_is_made_listed_and_revoked_and_each_is_audited(
    cli: Cli, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    create = ("keys", "create", "--database", "--tenant", "shop", "--scope", "submit")
    assert "notifier tenants set shop" in cli.run(*create, code=1).stderr
    cli.run("tenants", "set", "shop", "--note", "the web shop", "--database")
    made = cli.json(*create, "--test", "--rate", "5", "--expires", "90d")
    assert (made["tenant"], made["mode"], made["scopes"]) == ("shop", "test", ["submit"])
    assert (made["rate_per_s"], str(made["secret"])[:9]) == (5.0, "ntf_test_")
    line = cli.run("keys", "list", "--database").stdout.splitlines()[1]
    assert line.startswith(f"{made['id']}  tenant shop")
    assert "the web shop" in cli.run("tenants", "list", "--database").stdout
    assert "it has keys" in cli.run("tenants", "delete", "shop", "--database", code=1).stderr
    assert cli.run("keys", "revoke", str(made["id"]), "--database").stdout.endswith("revoked\n")
    assert "no key" in cli.run("keys", "revoke", str(made["id"]), "--database", code=1).stderr
    cli.run("tenants", "delete", "shop", "--database")
    rows = await connection.fetch("SELECT action, actor FROM audit ORDER BY id")
    assert [row["action"] for row in rows] == [
        "tenant.created",
        "key.created",
        "key.revoked",
        "tenant.deleted",
    ]
    assert all(row["actor"].startswith("cli:") for row in rows)


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--tenant", "Shop"),
        ("create", "--rate", "0"),
        ("create", "--rate", "nan"),
        ("create", "--rate", "1e-300"),
        ("create", "--note", "two\nlines"),
        ("create", "--scope", "dance"),
        ("create", "--expires", "soon"),
        ("revoke", "ntf_live_" + "0" * 61),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_made(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli.run("keys", *words, "--database", code=2)
    assert len(done.stderr.splitlines()) == 1
    assert "0" * 61 not in done.stderr
    assert cli.json("keys", "list", "--database")["items"] == []


def test_a_key_with_a_typing_error_is_found_before_it_is_sent(cli: Cli) -> None:
    key = cli.run("keys", "create", "--database").stdout.strip()
    for text in ("a" + key[1:], key[:-2], key[:30] + ("a" if key[30] != "a" else "b") + key[31:]):
        done = cli.run("check-config", code=2, NOTIFIER_CLIENT__KEY=text)
        assert "client.key" in done.stderr or "NOTIFIER_CLIENT__KEY" in done.stderr
        assert text not in done.stderr
    shown = cli.run("check-config", NOTIFIER_CLIENT__KEY=key).stdout
    assert 'client.key = "***"' in shown
    assert key not in shown
