"""The command line, one thin file per command group. Private: programs use the functions it calls."""
