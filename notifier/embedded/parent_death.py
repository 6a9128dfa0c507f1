"""Run as a script: bind this process to its parent's life, then turn into the command given.

A separate script and not a `preexec_fn`: that one runs Python between fork and exec, which is
unsafe (and warned about) in a process with threads. `PR_SET_PDEATHSIG` survives the exec but not
a change of user, so the order is user, signal, exec. Linux only; elsewhere only the user changes.

The signal comes when the *thread* that started us ends: start from a thread that lives on.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Become `uid` (-1: stay who we are), die by `signal` when `parent` does, exec `command`."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:  # it died before the signal was asked for
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 the purpose of this script


if __name__ == "__main__":
    _parent, _signal, _uid, _gid = map(int, sys.argv[1:5])
    main(_parent, _signal, _uid, _gid, sys.argv[5:])
