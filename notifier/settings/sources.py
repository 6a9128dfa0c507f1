"""Where settings come from: a TOML file, a `.env` file, the environment. Each gives one layer.

A layer is a nested table whose secrets were already fetched from their `_file`s. What a layer
cannot understand is a problem, never passed over.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from notifier.settings.convert import Text
from notifier.settings.problems import Problems
from notifier.settings.secrets import FROM_FILE, is_secret, shown_wrong

PREFIX: Final = "NOTIFIER_"
SHORT: Final = {
    "NOTIFIER_DATABASE_URL": "database.url",
    "NOTIFIER_BROKER_URL": "broker.url",
}
CONFIG: Final = "NOTIFIER_CONFIG"

_LINE: Final = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$")

# Kubernetes tells every pod of its namespace about a service named `notifier` in variables of its
# own: NOTIFIER_SERVICE_HOST, NOTIFIER_PORT=tcp://..., NOTIFIER_API_PORT_8000_TCP_ADDR.
_SERVICE: Final = re.compile(
    r"^NOTIFIER_(?:[A-Z0-9]+_)*?(?:SERVICE_(?:HOST|PORT)(?:_[A-Z0-9_]+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$"
)
_SERVICE_URL: Final = re.compile(r"^(?:tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value: its dotted path, the value, and where it was set."""

    path: tuple[str, ...]
    value: object
    origin: str


def read_toml(path: Path, problems: Problems) -> list[Entry]:
    """The entries of a TOML file; `x_file` is replaced by `x` where x is a secret."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problems.add(CONFIG, f"cannot read {path}: {_reason(error)}")
        return []
    except (ValueError, RecursionError) as error:  # tomllib lets int() and deep nesting through
        problems.add(str(path), f"is not TOML: {error}")
        return []
    return list(_flat(document, (), path, problems))


def _flat(
    table: Mapping[str, object], at: tuple[str, ...], file: Path, problems: Problems
) -> Iterator[Entry]:
    for name, value in table.items():
        path = (*at, name)
        key, base = ".".join(path), name.removesuffix(FROM_FILE)
        if isinstance(value, dict) and value:
            yield from _flat(value, path, file, problems)
        elif base != name and is_secret(".".join((*at, base))):
            if base in table:
                problems.add(key, f"is set beside {base}, expected one of the two")
            else:
                yield from _fetched((*at, base), value, file.parent, key, problems)
        else:
            yield Entry(path, value, str(file))


def _fetched(
    path: tuple[str, ...], value: object, folder: Path, origin: str, problems: Problems
) -> Iterator[Entry]:
    """The secret that stands in a file, without the newline editors put at its end."""
    try:
        text = (folder / str(value)).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        shown = shown_wrong(origin, str(value))
        problems.add(origin, f"cannot read {shown}: {_reason(error)}")
        return
    yield Entry(path, Text(text), origin)


def read_dotenv(path: Path, problems: Problems) -> dict[str, str]:
    """The variables of a `.env` file; none if it is not there.

    Lines are `NAME=value`, optionally after `export`; `#` starts a comment after a space; a value
    in quotes is taken as it stands, without expansion.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.add(str(path), f"cannot read: {_reason(error)}")
        return {}
    variables: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        if match := _LINE.match(text):
            variables[match[1]] = _unquoted(match[2])
        else:
            problems.add(f"{path} line {number}", "expected NAME=value")
    return variables


def _unquoted(text: str) -> str:
    if text[:1] in {'"', "'"} and (end := text.find(text[0], 1)) > 0:
        return text[1:end]
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


def read_environment(
    variables: Mapping[str, str], *, cwd: Path, where: str, problems: Problems
) -> list[Entry]:
    """The entries that `NOTIFIER_` variables stand for. `where` is shown with each (`.env`)."""
    entries: dict[tuple[str, ...], Entry] = {}
    for name, value in sorted(variables.items()):
        if not _is_ours(name, value):
            continue
        path, from_file = _path_of(name)
        origin = f"{name} in {where}" if where else name
        if not _is_unicode(value):
            problems.add(name, "holds bytes that are not UTF-8")
        elif not path:
            entries[name,] = Entry((name,), Text(value), origin)  # unknown: reported when merged
        elif path in entries:
            problems.add(name, f"sets {'.'.join(path)} again, after {entries[path].origin}")
        elif from_file:
            for entry in _fetched(path, value, cwd, origin, problems):
                entries[path] = entry
        else:
            entries[path] = Entry(path, Text(value), origin)
    return list(entries.values())


def _is_ours(name: str, value: str) -> bool:
    if not name.startswith(PREFIX) or name == CONFIG:
        return False
    return not (_SERVICE.match(name) or (name.endswith("_PORT") and _SERVICE_URL.match(value)))


def _path_of(name: str) -> tuple[tuple[str, ...], bool]:
    """The path of a variable and whether it names a file; no path if it can be no setting."""
    for short, key in SHORT.items():
        if name in (short, short + FROM_FILE.upper()):
            return tuple(key.split(".")), name != short
    path = tuple(name.removeprefix(PREFIX).lower().split("__"))
    if len(path) == 1 or not all(path):
        return (), False
    base = path[-1].removesuffix(FROM_FILE)
    if base != path[-1] and is_secret(".".join((*path[:-1], base))):
        return (*path[:-1], base), True
    return path, False


def _is_unicode(text: str) -> bool:
    """Whether it is free of the lone surrogates that stand for bytes nobody could decode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
