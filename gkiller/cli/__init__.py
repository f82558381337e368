"""The command line: one module per command. It parses, calls the library and draws."""
