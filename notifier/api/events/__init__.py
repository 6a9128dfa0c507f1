"""Events as callers read them: documents, lines and streams."""
