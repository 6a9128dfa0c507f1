"""MiniJinja templates, rendered in a process of their own, which a template may end."""
