"""Templates as files: a folder for each template, a file for each text.

`order-shipped/en.email.html` is the HTML of the channel `email` in the locale `en`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from notifier.domain.errors import ConfigError
from notifier.domain.templates import TEMPLATE_NAME_EXPECTED, is_locale, is_template_name

SETTINGS: Final = "template.toml"
SCHEMA: Final = "schema.json"
PARTS: Final[Mapping[str, str]] = {
    "subject": "subject",
    "txt": "body",
    "html": "html",
    "mjml": "mjml",
    "json": "data",
}
"""The part that a file has, by the end of its name."""
_ENDS: Final = {part: end for end, part in PARTS.items()}
_DEFAULT_LOCALE: Final = "default_locale"
_FILE_EXPECTED: Final = (
    f"{SETTINGS}, {SCHEMA}, or a file like en.email.html: locale, channel, and {', '.join(PARTS)}"
)

Document = dict[str, Any]
"""A document of TemplateParts."""


def read_folders(root: Path) -> Mapping[str, Document]:
    """Return the document of each template in a folder, by name. Raises ConfigError."""
    if not root.is_dir():
        raise ConfigError(f"{root}: expected a folder with a folder for each template")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not _is_hidden(path))
    if not folders:
        raise ConfigError(f"{root}: there is no template; expected folders such as order-shipped")
    return {_name(folder): _document(folder) for folder in folders}


def texts_of(document: Document) -> Mapping[str, str]:
    """Return the text of each file that a document would have, by file name."""
    texts = {
        f"{locale}.{channel}.{_ENDS.get(part, part)}": _text(value)
        for locale, channels in document["locales"].items()
        for channel, parts in channels.items()
        for part, value in parts.items()
        if value is not None
    }
    texts = {name: texts[name] for name in sorted(texts)}
    texts[SETTINGS] = f'{_DEFAULT_LOCALE} = "{document[_DEFAULT_LOCALE]}"'
    if document.get("schema") is not None:
        texts[SCHEMA] = _text(document["schema"])
    return texts


def changed_files(before: Document | None, after: Document) -> list[str]:
    """Return the names of the files that differ, with a + for a new and a - for a removed one."""
    old = {} if before is None else texts_of(before)
    new = texts_of(after)
    return [
        name if name in old and name in new else f"{'+' if name in new else '-'}{name}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _name(folder: Path) -> str:
    if not is_template_name(folder.name):
        raise ConfigError(
            f"{folder}: the folder's name is that of the template: expected "
            f"{TEMPLATE_NAME_EXPECTED}"
        )
    return folder.name


def _document(folder: Path) -> Document:
    locales: dict[str, dict[str, dict[str, object]]] = {}
    for path in _files(folder):
        locale, channel, part = _parsed(path)
        texts = locales.setdefault(locale, {}).setdefault(channel, {})
        texts[part] = _json(path) if part == "data" else _source(path, part)
    if not locales:
        raise ConfigError(f"{folder}: there is no text in it; expected a file like en.email.html")
    document: Document = {_DEFAULT_LOCALE: _default_locale(folder, locales), "locales": locales}
    schema = folder / SCHEMA
    if schema.exists():
        document["schema"] = _json(schema)
    return document


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not _is_hidden(path) and path.name not in {SETTINGS, SCHEMA, "README.md"}:
            yield path


def _parsed(path: Path) -> tuple[str, str, str]:
    """Return the locale, the channel and the part of a file, from its name."""
    locale, _, rest = path.name.partition(".")
    channel, _, end = rest.rpartition(".")
    if not path.is_file() or end not in PARTS or not channel or not is_locale(locale):
        raise ConfigError(f"{path}: expected {_FILE_EXPECTED}")
    return locale, channel, PARTS[end]


def _default_locale(folder: Path, locales: Mapping[str, object]) -> str:
    path = folder / SETTINGS
    if not path.exists():
        if len(locales) == 1:
            return next(iter(locales))
        raise ConfigError(f'{path}: it is missing; expected {_DEFAULT_LOCALE} = "en"')
    try:
        settings = tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    locale = settings.pop(_DEFAULT_LOCALE, None)
    if settings or locale not in locales:
        expected = f"{_DEFAULT_LOCALE} = one of {', '.join(locales)}, and nothing else"
        raise ConfigError(f"{path}: expected {expected}")
    return str(locale)


def _source(path: Path, part: str) -> str:
    text = _read(path)
    return text.rstrip("\r\n") if part == "subject" else text


def _json(path: Path) -> object:
    try:
        return msgspec.json.decode(_read(path), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: expected a JSON object: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected text in UTF-8") from error


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2).decode()


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")
