"""Everything that touches the world: one folder a technology, each implementing a port."""
