"""Protocols of what the core needs from outside. Adapters implement them; app wires them."""
