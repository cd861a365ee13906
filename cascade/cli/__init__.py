"""The command line, one thin file per command group. Private: programs use the functions it calls."""

import gc

# Importing LangGraph makes about a million objects that all stay. With Python's own threshold the collector
# walks through them again and again, for a sixth of the time that `cascade run` takes for one text.
gc.set_threshold(50_000, 20, 20)
