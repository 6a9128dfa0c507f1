"""The client's distribution: what is in it, what it needs, and where it reads its settings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from notifier_client import AsyncNotifier, Notifier
from notifier_client.configuration import KEY, KEY_FILE, URL, api_key, api_url

CLIENT = Path(__file__).parents[2] / "client"
MODULES = sorted((CLIENT / "notifier_client").glob("*.py"))
OLDEST = (3, 10)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (URL, KEY, KEY_FILE):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_the_standard_library_and_httpx_alone(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=OLDEST)
    only_checked = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if node not in only_checked
        for name in names(node)
    }
    assert imported <= {*sys.stdlib_module_names, "httpx", "notifier_client"}


def names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_the_wheel_has_the_package_its_types_and_one_requirement(tmp_path: Path) -> None:
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    subprocess.run(build, cwd=CLIENT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("notifier_client-*-py3-none-any.whl")
    with ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        described = archive.read(metadata).decode()
    assert files == {
        *(f"notifier_client/{module.name}" for module in MODULES),
        "notifier_client/py.typed",
    }
    assert re.findall(r"^Requires-Dist: ([\w-]+)", described, re.MULTILINE) == ["httpx"]
    assert "Requires-Python: >=3.10" in described


def test_the_licence_of_the_client_is_that_of_the_repository() -> None:
    assert (CLIENT / "LICENSE").read_text() == (CLIENT.parent / "LICENSE").read_text()


def test_both_clients_have_the_same_calls() -> None:
    def calls(client: type) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    assert calls(AsyncNotifier) - {"aclose"} == calls(Notifier) - {"close"}


def test_url_and_key_come_from_the_variables_of_the_command_line(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv(URL, "http://127.0.0.1:8000/notify/")
    assert api_url(None) == "http://127.0.0.1:8000/notify"
    assert api_key(None) == ""
    (tmp_path / "key").write_text("\ufeffntf_live_file\n")
    environment.setenv(KEY_FILE, str(tmp_path / "key"))
    assert api_key(None) == "ntf_live_file"
    environment.setenv(KEY, "ntf_live_variable")
    assert api_key(None) == "ntf_live_variable"
    assert api_key("ntf_live_given\n") == "ntf_live_given"
    assert api_key("") == ""


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a/?b=c"])
def test_a_wrong_url_is_an_error(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv(URL, url)
    with pytest.raises(ValueError, match=r"(?i)url"):
        Notifier()
    with pytest.raises(ValueError, match=r"(?i)url"):
        Notifier(url)


@pytest.mark.parametrize("key", ["ntf\r\nX-Evil: 1", "ntf_live_ü", "ntf live"])
def test_a_key_that_is_no_header_is_an_error_that_does_not_show_it(key: str) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        Notifier("http://127.0.0.1:1", key=key)
    assert key not in str(caught.value)
