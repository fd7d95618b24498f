"""The command line: one thin file per verb, callers of the public names."""
