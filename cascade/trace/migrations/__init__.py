"""Alembic migrations of the trace database, run by `cascade.trace.migrate`."""
