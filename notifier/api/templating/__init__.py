"""Templates: documents, their checks, and what a submit with a template is filled with."""
