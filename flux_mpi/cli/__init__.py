"""The command line: one file a command, which parses arguments and prints, and no more."""
