"""A fake provider on real protocols: mail over SMTP, SMS and push over HTTP.

It delivers nothing, answers each recipient by a fixed fate, and logs every call.
"""

from notifier.sandbox.server import Sandbox, open_sandbox

__all__ = ["Sandbox", "open_sandbox"]
