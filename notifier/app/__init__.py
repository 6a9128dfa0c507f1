"""The composition root: the only package that knows every adapter.

A process is built from three pieces: what every process has (process.py), what accepts
(accepting.py) and what sends (sending.py). roles.py puts them together for `api` and `worker`,
dev.py for `dev`. Leaving their blocks is the shutdown, in reverse order. Nothing is imported here:
`api` and `worker` run without what only `dev` needs.
"""
