"""A script: tie this process to the life of its parent, then replace it by the given command.

It is a script and not a `preexec_fn`: that would run Python between fork and exec, which is unsafe
in a process with threads. `PR_SET_PDEATHSIG` survives the exec but not a change of user, so the
order is user, signal, exec. Linux only; elsewhere only the user changes.

The kernel sends the signal when the *thread* that forked ends, so the caller forks from a thread
that lives as long as the process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def main(parent: int, signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Become `uid` (-1: no change), request `signal` at the end of `parent`, exec `command`."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:  # the parent ended before the signal was requested
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 the purpose of this script


if __name__ == "__main__":
    _parent, _signal, _uid, _gid = map(int, sys.argv[1:5])
    main(_parent, _signal, _uid, _gid, sys.argv[5:])
