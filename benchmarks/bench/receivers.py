"""What the sender workloads send to: Postfix's smtp-sink, and an nginx that answers 201."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import closing

from benchmarks.bench.limits import NotHere
from benchmarks.bench.place import ROOT, Place
from notifier.embedded.free_ports import free_ports

UNPACKED = ROOT / ".cache/bench/receivers"
FOLDERS = ("/usr/sbin", "/usr/local/sbin", str(UNPACKED / "usr/sbin"))
LIBRARIES = UNPACKED / "usr/lib/postfix"
BACKLOG = "512"
TRIES_S = 0.2

NGINX = """\
daemon off;
master_process off;
{user}
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 100000000;
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        default_type application/json;
        location / {{ return 201 '{{"sid": "SM00000000000000000000000000000000"}}'; }}
    }}
}}
"""


def smtp_sink(place: Place) -> int:
    """Start smtp-sink, which takes every mail and keeps none; return its port."""
    (port,) = free_ports(1)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [_found("smtp-sink"), *user, f"127.0.0.1:{port}", BACKLOG]
    place.children.start("smtp-sink", command, {"LD_LIBRARY_PATH": str(LIBRARIES)})
    place.children.wait(lambda: _listens(port), "smtp-sink")
    return port


def nginx(place: Place) -> str:
    """Start an nginx of one process; return its URL."""
    (port,) = free_ports(1)
    user = "user root root;" if os.geteuid() == 0 else ""
    folder = place.folder / "nginx"
    folder.mkdir()
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(user=user, port=port, backlog=BACKLOG))
    command = [_found("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(settings)]
    place.children.start("nginx", command, {})
    place.children.wait(lambda: _listens(port), "nginx")
    return f"http://127.0.0.1:{port}"


def _found(program: str) -> str:
    path = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], *FOLDERS]))
    if path is None:
        raise NotHere(f"there is no {program} here")
    return path


def _listens(port: int) -> bool:
    with closing(socket.socket()) as client:
        client.settimeout(TRIES_S)
        return client.connect_ex(("127.0.0.1", port)) == 0
