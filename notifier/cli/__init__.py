"""The command line: reads the settings, owns the signals, sets the exit code.

One module a family of commands. What is heavy is imported inside the command that needs it, so
that `notifier --help` is quick.
"""
