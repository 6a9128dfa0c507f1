"""The images of the rehearsal: pulled where a registry is reached, else stood in for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import yaml  # type: ignore[import-untyped]

from deploy.rehearsal import stand_ins
from deploy.rehearsal.engine import (
    COMPOSE_FILE,
    ROOT,
    CommandFailed,
    docker,
    inspected,
    is_here,
)

DOCKERFILE = ROOT / "deploy/Dockerfile"
OURS = "api"
PYTHON = "python"


def names() -> Mapping[str, str]:
    """Every image by the service it is for; `python` is what ours is built on."""
    (base,) = set(re.findall(r"(?m)^FROM (\S+)", DOCKERFILE.read_text()))
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return {PYTHON: base, **{name: service["image"] for name, service in services.items()}}


@contextmanager
def provided(
    *, forced: bool, keep: bool, tell: Callable[[str], None]
) -> Iterator[Mapping[str, str]]:
    """The images that could be had, by service, ours built. Stand-ins go again unless `keep`."""
    foreign = {name: image for name, image in names().items() if image != names()[OURS]}
    missing = dict(foreign) if forced else _not_pulled(foreign, tell)
    there = {name: image for name, image in foreign.items() if name not in missing}
    try:
        there |= stand_ins.build(missing, tell)
        tell("building our image")
        stand_ins.build_image(DOCKERFILE, names()[OURS], ROOT)
        yield there | {name: image for name, image in names().items() if name not in foreign}
    finally:
        if not keep:
            stand_ins.remove()


def megabytes_over_base() -> float:
    """How much our image adds to the one it is built on."""
    ours, base = (inspected("image", names()[name])["Size"] for name in (OURS, PYTHON))
    return float(ours - base) / 1e6


def _not_pulled(wanted: Mapping[str, str], tell: Callable[[str], None]) -> dict[str, str]:
    """Those that are not here, once one of them cannot be pulled; else none."""
    missing = {name: image for name, image in wanted.items() if not is_here(image)}
    for image in missing.values():
        tell(f"pulling {image}")
        try:
            docker("pull", "--quiet", image)
        except CommandFailed as error:
            tell(f"stand-ins for what is not here: {error}")
            return {name: image for name, image in missing.items() if not is_here(image)}
    return {}
