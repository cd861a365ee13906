"""A separate process that writes runs and grades: python writers.py NAME DATABASE RUNS."""

import sys

from cascade.records import Request, Result
from cascade.trace import TraceStore

name, database, runs = sys.argv[1:]
with TraceStore(database) as store:
    for index in range(int(runs)):
        run = Result(run=f"{name}{index}", graph="g", status="accepted", text="x", request=Request(text="y"))
        store.write(run)
        if index % 10 == 0:
            store.grade(run.run, True)
