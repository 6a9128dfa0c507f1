"""The images of the rehearsal: pulled, or built as stand-ins if no registry can be reached."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import yaml  # type: ignore[import-untyped]

from deploy.rehearsal import stand_ins
from deploy.rehearsal.engine import (
    COMPOSE_FILE,
    ROOT,
    CommandFailed,
    docker,
    has_image,
    inspect,
)
from deploy.rehearsal.log import log

DOCKERFILE = ROOT / "deploy/Dockerfile"
OURS = "api"
PYTHON = "python"


def names() -> Mapping[str, str]:
    """Return the image of every service. `python` is the base of our image."""
    (base,) = set(re.findall(r"(?m)^FROM (\S+)", DOCKERFILE.read_text()))
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return {PYTHON: base, **{name: service["image"] for name, service in services.items()}}


@contextmanager
def available_images(*, only_stand_ins: bool, keep: bool) -> Iterator[Mapping[str, str]]:
    """Build our image and yield all available images by service.

    Removes the stand-ins at the end unless `keep`.
    """
    foreign = {name: image for name, image in names().items() if image != names()[OURS]}
    missing = dict(foreign) if only_stand_ins else _pull(foreign)
    available = {name: image for name, image in foreign.items() if name not in missing}
    try:
        available |= stand_ins.build(missing)
        log("building our image")
        stand_ins.build_image(DOCKERFILE, names()[OURS], ROOT)
        yield available | {name: image for name, image in names().items() if name not in foreign}
    finally:
        if not keep:
            stand_ins.remove()


def megabytes_over_base() -> float:
    """Return how much larger our image is than its base, in MB."""
    ours, base = (inspect("image", names()[name])["Size"] for name in (OURS, PYTHON))
    return float(ours - base) / 1e6


def _pull(images: Mapping[str, str]) -> dict[str, str]:
    """Pull the images that Docker lacks. After a failure, returns the missing images."""
    missing = {name: image for name, image in images.items() if not has_image(image)}
    for image in missing.values():
        log(f"pulling {image}")
        try:
            docker("pull", "--quiet", image)
        except CommandFailed as error:
            log(f"building stand-ins for the missing images: {error}")
            return {name: image for name, image in missing.items() if not has_image(image)}
    return {}
