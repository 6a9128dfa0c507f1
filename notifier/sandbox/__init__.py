"""A fake provider on real protocols: email over SMTP, SMS and push over HTTP.

It delivers nothing, responds to each recipient with a fixed fate, and logs every call.
"""

from notifier.sandbox.server import Sandbox, open_sandbox

__all__ = ["Sandbox", "open_sandbox"]
