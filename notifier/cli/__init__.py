"""The command line: reads the settings, handles signals and sets the exit code.

One module for each family of commands. A command imports heavy modules inside its function, so that
`notifier --help` is fast.
"""
