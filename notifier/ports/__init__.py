"""What the core needs from the world: narrow Protocols. Adapters implement them, app wires them."""
