"""The composition root: the only package that knows every adapter.

process.py opens what every process has, accepting.py the HTTP side and sending.py the sending side.
roles.py combines them into `api` and `worker`, dev.py into `dev`. Leaving a block is the shutdown,
in reverse order. This module imports nothing: `api` and `worker` start without the packages that
only `dev` needs.
"""
