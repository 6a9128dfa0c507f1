"""Why a notification waits, how many stand before it, and when it is expected to be sent. Pure."""
