"""The sources of settings: a TOML file, a `.env` file and the environment.

Each is read into entries, in which secrets are already read from their `_file`. Whatever cannot be
read is reported as a problem.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from notifier.domain.secret_names import is_secret
from notifier.settings.convert import Text
from notifier.settings.problems import Problems, did_you_mean
from notifier.settings.secrets import FROM_FILE, shown

PREFIX: Final = "NOTIFIER_"
CONFIG: Final = "NOTIFIER_CONFIG"
SHORT_NAMES: Final = {
    "NOTIFIER_DATABASE_URL": "NOTIFIER_DATABASE__URL",
    "NOTIFIER_DATABASE_URL_FILE": "NOTIFIER_DATABASE__URL_FILE",
    "NOTIFIER_BROKER_URL": "NOTIFIER_BROKER__URL",
    "NOTIFIER_BROKER_URL_FILE": "NOTIFIER_BROKER__URL_FILE",
}

_DOTENV_LINE: Final = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$")

# For a service named `notifier`, Kubernetes sets variables in every pod of the namespace:
# NOTIFIER_SERVICE_HOST, NOTIFIER_PORT=tcp://..., NOTIFIER_API_PORT_8000_TCP_ADDR.
_SERVICE: Final = re.compile(
    r"^NOTIFIER_(?:[A-Z0-9]+_)*?(?:SERVICE_(?:HOST|PORT)(?:_[A-Z0-9_]+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$"
)
_SERVICE_URL: Final = re.compile(r"^(?:tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value: the path of its key, the value, and where it was set."""

    path: tuple[str, ...]
    value: object
    origin: str


def read_toml(path: Path, problems: Problems, *, is_optional: bool = False) -> list[Entry]:
    """Read a TOML file. A key `x_file` becomes `x` if `x` is a secret.

    An optional file may be missing; whatever else prevents reading it is a problem.
    """
    try:
        document = tomllib.loads(_text_of(path))
    except (OSError, UnicodeDecodeError) as error:
        if not is_optional:
            problems.add(CONFIG, f"cannot read {path}: {_reason(error)}")
        elif not isinstance(error, FileNotFoundError):
            problems.add(str(path), f"cannot read: {_reason(error)}")
        return []
    except (ValueError, RecursionError) as error:  # tomllib does not wrap errors of int() and depth
        problems.add(str(path), f"is not TOML: {error}")
        return []
    return list(_flatten(document, (), path, problems))


def _text_of(path: Path) -> str:
    """Return the text of a file in UTF-8, without the byte order mark that some editors write."""
    return path.read_text("utf-8-sig")


def _flatten(
    table: Mapping[str, object], parent: tuple[str, ...], file: Path, problems: Problems
) -> Iterator[Entry]:
    for name, value in table.items():
        path = (*parent, name)
        key, base = ".".join(path), name.removesuffix(FROM_FILE)
        if isinstance(value, dict) and value:
            yield from _flatten(value, path, file, problems)
        elif base != name and is_secret(".".join((*parent, base))):
            if base in table:
                problems.add(key, f"{base} is set, too, expected only one of the two")
            else:
                yield from _read_secret((*parent, base), value, file.parent, key, problems)
        else:
            yield Entry(path, value, str(file))


def _read_secret(
    path: tuple[str, ...], value: object, folder: Path, origin: str, problems: Problems
) -> Iterator[Entry]:
    """Read a secret from its file, without the white space around it.

    Editors add a line end, and people who write the file with `echo` a blank.
    """
    shown_path = shown(origin, str(value))
    try:
        text = _text_of(folder / str(value)).strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        problems.add(origin, f"cannot read {shown_path}: {_reason(error)}")
        return
    if not text:
        problems.add(origin, f"{shown_path} is empty, expected a file with the secret")
        return
    yield Entry(path, Text(text), origin)


def read_dotenv(path: Path, problems: Problems) -> dict[str, str]:
    """Read the variables of a `.env` file; none if the file does not exist.

    Lines are `NAME=value`, optionally after `export`. `#` after a space starts a comment. A quoted
    value is used without expansion, and may have several lines, as a PEM file has.
    """
    try:
        text = _text_of(path)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.add(str(path), f"cannot read: {_reason(error)}")
        return {}
    variables: dict[str, str] = {}
    lines_of: dict[str, int] = {}
    for number, name, value in _assignments(path, text, problems):
        if name in lines_of and name.upper().startswith(PREFIX):
            problems.add(
                f"{path} line {number}", f"sets {name}, as line {lines_of[name]} does; remove one"
            )
        variables[name], lines_of[name] = value, number
    return variables


def _assignments(path: Path, text: str, problems: Problems) -> Iterator[tuple[int, str, str]]:
    """Yield line number, name and value of each assignment of a `.env` file."""
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    for number, line in lines:
        if not (stripped := line.strip()) or stripped.startswith("#"):
            continue
        match = _DOTENV_LINE.match(stripped)
        if not match:
            problems.add(f"{path} line {number}", "expected NAME=value")
            continue
        name, value = match[1], match[2]
        if value[:1] not in {'"', "'"}:
            yield number, name, re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
            continue
        quoted = [line.partition("=")[2].lstrip()[1:]]
        while value[0] not in quoted[-1] and (following := next(lines, None)):
            quoted.append(following[1])
        content, quote, rest = "\n".join(quoted).partition(value[0])
        if not quote:
            problems.add(f"{path} line {number}", f"the value of {name} has no closing {value[0]}")
        elif rest.strip() and not rest.lstrip().startswith("#"):
            problems.add(f"{path} line {number}", f"text after the closing {value[0]} of {name}")
        else:
            yield number, name, content


def read_environment(
    variables: Mapping[str, str],
    known: Iterable[str],
    *,
    cwd: Path,
    place: str,
    problems: Problems,
) -> list[Entry]:
    """Read the `NOTIFIER_` variables.

    `known` are the names to suggest for an unknown one. Origins are the name and `place`. Upper and
    lower case are the same. An empty variable, as compose sets for `${NAME:-}`, sets nothing.
    """
    entries: dict[tuple[str, ...], Entry] = {}
    for name, value in sorted(variables.items()):
        if not _is_setting(name, value):
            continue
        path, is_file = _path_of(name)
        if not _is_unicode(value):
            problems.add(name, "contains bytes that are not UTF-8")
        elif not path:
            problems.add(name, f"unknown variable{did_you_mean(name, known)}")
        elif not (text := value.strip("\r\n")):
            continue
        elif path in entries:
            other = entries[path].origin
            problems.add(name, f"sets {'.'.join(path)}, which {other} sets, too; remove one")
        elif is_file:
            secret = _read_secret(path, text, cwd, name + place, problems)
            entries.update((path, entry) for entry in secret)
        else:
            entries[path] = Entry(path, Text(text), name + place)
    return list(entries.values())


def _is_setting(name: str, value: str) -> bool:
    if not name.upper().startswith(PREFIX) or name == CONFIG:
        return False
    return not (_SERVICE.match(name) or (name.endswith("_PORT") and _SERVICE_URL.match(value)))


def _path_of(name: str) -> tuple[tuple[str, ...], bool]:
    """Return the path of a variable's key, and whether its value names a file.

    The path is empty if no key can have this name.
    """
    upper = name.upper()
    path = tuple(SHORT_NAMES.get(upper, upper).removeprefix(PREFIX).lower().split("__"))
    if len(path) == 1 or not all(path):
        return (), False
    base = path[-1].removesuffix(FROM_FILE)
    if base != path[-1] and is_secret(".".join((*path[:-1], base))):
        return (*path[:-1], base), True
    return path, False


def _is_unicode(text: str) -> bool:
    """Return whether the text is free of lone surrogates, which encode bytes that are not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _reason(error: Exception) -> str:
    match error:
        case OSError(strerror=str(text)):
            return text
        case UnicodeDecodeError():
            return "it is not text in UTF-8"
        case _:
            return str(error)
