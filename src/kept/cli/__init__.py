"""Floor 8: the command line: one file per noun; thin: parses, calls, prints."""
