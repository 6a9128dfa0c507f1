"""Images made of Debian's packages under the names of the real ones, marked by a label.

What this machine needs to reach a package index (certificates, proxies, another index) is read when
they are built, and is kept in no file of the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deploy.rehearsal.engine import ROOT, CommandFailed, docker, is_here, run

FOLDER = ROOT / "deploy/stand-ins"
SUITE = "bookworm"
BASE = f"notifier-stand-in:{SUITE}"
LABEL = "notifier.stand-in"  # the base has it, and hands it on
MARKED = (f"--filter=label={LABEL}",)
CERTIFICATES = "stand-in-certificates.pem"
HOST_ARGUMENTS = ("PIP_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")


def build(wanted: Mapping[str, str], tell: Callable[[str], None]) -> dict[str, str]:
    """A stand-in for each image that has one; which they were. Raises CommandFailed."""
    possible = {name: image for name, image in wanted.items() if (FOLDER / name).is_dir()}
    for image in possible.values():
        if is_here(image) and image not in images():
            raise CommandFailed(f"{image} is here: remove it, or do without --stand-ins")
    for name, image in possible.items():
        if image not in images():
            _build_base(tell)
            tell(f"building a stand-in for {image}")
            _build_one(FOLDER / name, image)
    return possible


def images() -> Sequence[str]:
    """The stand-ins there are, what they are built on, and what was built on them."""
    return docker("image", "ls", *MARKED, "--format={{.Repository}}:{{.Tag}}").split()


def remove() -> None:
    """All of them, and what no name is left for."""
    for image in sorted(images(), key=lambda image: image == BASE):
        with suppress(CommandFailed):
            docker("image", "rm", image)
    docker("image", "prune", "--force", *MARKED)


def build_image(dockerfile: Path, image: str, context: Path) -> None:
    """Build with the host's network: where an engine has none to lend, its own still works."""
    given = [f"--build-arg={name}" for name in HOST_ARGUMENTS if os.environ.get(name)]
    docker("build", "--quiet", "--network=host", *given, "-f", dockerfile, "-t", image, context)


def _build_one(folder: Path, image: str) -> None:
    with tempfile.TemporaryDirectory(prefix="notifier-stand-in-") as made:
        context = Path(made, "context")
        shutil.copytree(folder, context)
        _bring_trust(context / "trust")
        build_image(context / "Dockerfile", image, context)


def _build_base(tell: Callable[[str], None]) -> None:
    if is_here(BASE):
        return
    if shutil.which("debootstrap") is None:
        raise CommandFailed("stand-ins are made with debootstrap: apt-get install debootstrap")
    tell(f"making {BASE} with debootstrap")
    with tempfile.TemporaryDirectory(prefix="notifier-stand-in-") as made:
        root, archive = Path(made, "root"), Path(made, "root.tar")
        run(["debootstrap", "--variant=minbase", SUITE, root])
        run(["tar", "--create", "--file", archive, "--directory", root, "."])
        docker("import", f"--change=LABEL {LABEL}=yes", archive, BASE)


def _bring_trust(folder: Path) -> None:
    """The certificates that pip is told to trust here, if it is; the folder exists either way."""
    folder.mkdir()
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.cert"],
        capture_output=True,
        text=True,
        check=False,
    )
    certificates = Path(os.environ.get("PIP_CERT") or told.stdout.strip() or "-")
    if certificates.is_file():
        shutil.copyfile(certificates, folder / CERTIFICATES)
        (folder / "pip.conf").write_text(f"[global]\ncert = /etc/{CERTIFICATES}\n")
