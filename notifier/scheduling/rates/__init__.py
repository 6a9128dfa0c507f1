"""How fast one consumer and one provider may be called."""
