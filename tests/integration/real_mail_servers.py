"""Private instances of Debian's Postfix and Exim, unpacked by deploy/install-mail-servers.

They run from their folder, as root or as any user: libnss_wrapper names their users, and for
Postfix libuid_wrapper makes a user root. They accept mails on the loopback and deliver nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from notifier.embedded.free_ports import free_ports

ROOT = Path(__file__).parents[2] / ".cache/mail-servers"
START_S = 30.0
SERVERS_UID = 40_001  # of the servers' own users, where root starts them
QUEUE_FOLDERS = (
    *("incoming", "active", "deferred", "bounce", "defer", "corrupt", "hold", "trace", "flush"),
    *("saved", "maildrop", "pid", "private", "public"),
)

POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {root}/usr/sbin
daemon_directory = {root}/usr/lib/postfix/sbin
meta_directory = {folder}/conf
shlib_directory = {root}/usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = mail.example.com
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
default_transport = discard
mynetworks = 192.0.2.0/24
maillog_file = {folder}/log
maillog_file_prefixes = /
import_environment = MAIL_CONFIG {environment}
smtpd_relay_restrictions =
smtpd_client_event_limit_exceptions =
"""
POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
anvil unix - - n - 1 anvil
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""
EXIM = """\
primary_hostname = mail.example.com
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/exim.pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
queue_only = true
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
keep_environment =
never_users =
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = check_rcpt
{options}
begin acl
check_rcpt:
{rules}
  accept domains = example.com
  deny message = relay not permitted
begin routers
begin transports
begin retry
"""


@dataclass(frozen=True, slots=True)
class MailServer:
    """A running server: its port, and its log, which it creates with the first line."""

    port: int
    log: Path

    def read_log(self) -> str:
        """What it has logged until now."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def message_ids(self) -> list[str]:
        """The Message-IDs of the mails that it took, one per mail."""
        return re.findall(r"(?:message-id=<| id=)([0-9a-f-]{36})@", self.read_log())


@asynccontextmanager
async def open_postfix(*settings: str) -> AsyncIterator[MailServer]:
    """Postfix with more lines of main.cf, without a rule for recipients."""
    with _server_folder() as folder:
        (port,) = free_ports(1)
        environment = postfix_environment(folder)
        for name in ("conf", "data", *(f"queue/{each}" for each in QUEUE_FOLDERS)):
            (folder / name).mkdir(parents=True)
        main = POSTFIX_MAIN.format(root=ROOT, folder=folder, environment=" ".join(environment))
        (folder / "conf/main.cf").write_text("\n".join([main, *settings, ""]))
        (folder / "conf/master.cf").write_text(POSTFIX_MASTER.format(port=port))
        _own(folder / "data", *((folder / "queue" / each) for each in QUEUE_FOLDERS[:-3]))
        _own(folder / "queue/private", folder / "queue/public")
        (folder / "queue/private").chmod(0o700)
        command = [f"{ROOT}/usr/lib/postfix/sbin/master", "-d", "-c", f"{folder}/conf"]
        async with running_server(command, environment, port):
            yield MailServer(port, folder / "log")


@asynccontextmanager
async def open_exim(*options: str, rules: Sequence[str] = ()) -> AsyncIterator[MailServer]:
    """Exim with more options, and more rules for recipients, before that it takes example.com."""
    with _server_folder() as folder:
        (port,) = free_ports(1)
        environment = _environment(folder, "Debian-exim")
        (folder / "spool").mkdir()
        settings = folder / "exim.conf"
        text = EXIM.format(
            folder=folder, port=port, options="\n".join(options), rules="\n".join(rules)
        )
        settings.write_text(text)
        _own(folder, folder / "spool")
        command = [f"{ROOT}/usr/sbin/exim4", "-bdf", "-C", str(settings)]
        async with running_server(command, environment, port):
            yield MailServer(port, folder / "mainlog")


def postfix_environment(folder: Path) -> dict[str, str]:
    """The variables for Postfix's programs."""
    return _environment(folder, "postfix", "postdrop", acts_as_root=True)


@contextmanager
def _server_folder() -> Iterator[Path]:
    """A folder that the servers' users can enter; pytest's own are for their owner only."""
    assert (ROOT / "complete").exists(), "run deploy/install-mail-servers"
    folder = Path(tempfile.mkdtemp(prefix="notifier-mail-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own(*folders: Path) -> None:
    if os.geteuid() == 0:
        for folder in folders:
            os.chown(folder, SERVERS_UID, SERVERS_UID)


def _environment(folder: Path, *names: str, acts_as_root: bool = False) -> dict[str, str]:
    """The variables with which the servers find their users and libraries."""
    uid = SERVERS_UID if os.geteuid() == 0 else os.geteuid()
    gid = SERVERS_UID if os.geteuid() == 0 else os.getegid()
    users = [f"{names[0]}:x:{uid}:{gid}::/nonexistent:/usr/sbin/nologin"]
    groups = [f"{name}:x:{gid + number}:" for number, name in enumerate(names)]
    for name, own, others in (
        ("passwd", users, ["root:x:0:0:root:/root:/bin/sh", "nobody:x:65533:65533::/:/bin/false"]),
        ("group", groups, ["root:x:0:", "nogroup:x:65533:"]),
    ):
        (folder / name).write_text("\n".join([*others, *own, ""]))
    (libraries,) = (ROOT / "usr/lib").glob("*-linux-gnu*")
    wrappers = [f"{libraries}/libnss_wrapper.so"]
    if acts_as_root and os.geteuid() != 0:
        wrappers.append(f"{libraries}/libuid_wrapper.so")
    return {
        "LD_LIBRARY_PATH": f"{ROOT}/usr/lib/postfix:{libraries}",
        "LD_PRELOAD": ":".join(wrappers),
        "NSS_WRAPPER_PASSWD": f"{folder}/passwd",
        "NSS_WRAPPER_GROUP": f"{folder}/group",
        **({"UID_WRAPPER": "1", "UID_WRAPPER_ROOT": "1"} if len(wrappers) > 1 else {}),
    }


@asynccontextmanager
async def running_server(
    command: Sequence[str], environment: dict[str, str], port: int, *, folder: Path | None = None
) -> AsyncIterator[None]:
    """A server that runs in this folder, as soon as it listens on its port."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment | {"PATH": os.environ["PATH"]},
        start_new_session=True,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(START_S):
            while not await _listens(port):
                if process.returncode is not None and process.stderr is not None:
                    raise AssertionError((await process.stderr.read()).decode())
                await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True
