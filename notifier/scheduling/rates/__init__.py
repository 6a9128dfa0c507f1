"""How often one consumer and one provider may be called."""
