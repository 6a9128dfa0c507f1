"""Builds stand-ins: images of Debian packages under the names of the real images, with a label.

The build reads this machine's settings for package indexes (certificates, proxies, another index).
No file of the checkout contains them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deploy.rehearsal.engine import ROOT, CommandFailed, docker, has_image, run
from deploy.rehearsal.log import log

FOLDER = ROOT / "deploy/stand-ins"
SUITE = "bookworm"
BASE = f"notifier-stand-in:{SUITE}"
LABEL = "notifier.stand-in"  # on the base image, and inherited from it
LABELLED = (f"--filter=label={LABEL}",)
CERTIFICATES = "stand-in-certificates.pem"
HOST_VARIABLES = ("PIP_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")


def build(wanted_images: Mapping[str, str]) -> dict[str, str]:
    """Build the stand-ins that exist for these images. Returns their images by service.

    Raises CommandFailed.
    """
    possible = {name: image for name, image in wanted_images.items() if (FOLDER / name).is_dir()}
    for image in possible.values():
        if has_image(image) and image not in images():
            raise CommandFailed(
                f"Docker has {image} already: remove it, or run without --stand-ins"
            )
    for name, image in possible.items():
        if image not in images():
            _build_base()
            log(f"building a stand-in for {image}")
            _build_one(FOLDER / name, image)
    return possible


def images() -> Sequence[str]:
    """Return the names of all stand-ins, their base, and images built on them."""
    return docker("image", "ls", *LABELLED, "--format={{.Repository}}:{{.Tag}}").split()


def remove() -> None:
    """Remove all stand-ins, and labelled images without a name."""
    for image in sorted(images(), key=lambda image: image == BASE):
        with suppress(CommandFailed):
            docker("image", "rm", image)
    docker("image", "prune", "--force", *LABELLED)


def build_image(dockerfile: Path, image: str, context: Path) -> None:
    """Build an image. Uses the host's network, since the engine may have no bridge network."""
    arguments = [f"--build-arg={name}" for name in HOST_VARIABLES if os.environ.get(name)]
    docker("build", "--quiet", "--network=host", *arguments, "-f", dockerfile, "-t", image, context)


def _build_one(folder: Path, image: str) -> None:
    with tempfile.TemporaryDirectory(prefix="notifier-stand-in-") as folder_name:
        context = Path(folder_name, "context")
        shutil.copytree(folder, context)
        _copy_certificates(context / "trust")
        build_image(context / "Dockerfile", image, context)


def _build_base() -> None:
    if has_image(BASE):
        return
    if shutil.which("debootstrap") is None:
        raise CommandFailed("stand-ins need debootstrap: apt-get install debootstrap")
    log(f"building {BASE} with debootstrap")
    with tempfile.TemporaryDirectory(prefix="notifier-stand-in-") as folder_name:
        root, archive = Path(folder_name, "root"), Path(folder_name, "root.tar")
        run(["debootstrap", "--variant=minbase", SUITE, root])
        run(["tar", "--create", "--file", archive, "--directory", root, "."])
        docker("import", f"--change=LABEL {LABEL}=yes", archive, BASE)


def _copy_certificates(folder: Path) -> None:
    """Copy the certificates that pip trusts on this machine, if any. Always makes the folder."""
    folder.mkdir()
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.cert"],
        capture_output=True,
        text=True,
        check=False,
    )
    certificates = Path(os.environ.get("PIP_CERT") or configured.stdout.strip() or "-")
    if certificates.is_file():
        shutil.copyfile(certificates, folder / CERTIFICATES)
        (folder / "pip.conf").write_text(f"[global]\ncert = /etc/{CERTIFICATES}\n")
