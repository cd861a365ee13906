"""Traces: stores every run, and finds, grades, checks, exports and prunes runs; also daily budgets.

The public names are loaded on first use, so that importing this package does not import SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names

if TYPE_CHECKING:
    from cascade.trace._archive import Imported, export_runs, import_runs
    from cascade.trace._budgets import BudgetBalance, BudgetBook, Reservation
    from cascade.trace._filters import RunFilter
    from cascade.trace._grades import Grade
    from cascade.trace._history import history, max_call_costs, newest_grades
    from cascade.trace._ledger import Head, read_key
    from cascade.trace._overview import OVERVIEW_WINDOW, Figures, Opinion, Overview
    from cascade.trace._prune import FileSize, Pruned, prune, vacuum
    from cascade.trace._queries import RunSummary
    from cascade.trace._redact import redact
    from cascade.trace._store import TraceStore, default_url
    from cascade.trace._tables import SCHEMA_VERSION
    from cascade.trace._verify import Verification, read_head, verify

__all__ = [
    "OVERVIEW_WINDOW",
    "SCHEMA_VERSION",
    "BudgetBalance",
    "BudgetBook",
    "Figures",
    "FileSize",
    "Grade",
    "Head",
    "Imported",
    "Opinion",
    "Overview",
    "Pruned",
    "Reservation",
    "RunFilter",
    "RunSummary",
    "TraceStore",
    "Verification",
    "default_url",
    "export_runs",
    "history",
    "import_runs",
    "max_call_costs",
    "newest_grades",
    "prune",
    "read_head",
    "read_key",
    "redact",
    "vacuum",
    "verify",
]

if not TYPE_CHECKING:  # a type checker reads the imports above instead
    __getattr__ = lazy_names(
        __name__,
        {
            "._archive": "Imported export_runs import_runs",
            "._budgets": "BudgetBalance BudgetBook Reservation",
            "._filters": "RunFilter",
            "._grades": "Grade",
            "._history": "history max_call_costs newest_grades",
            "._ledger": "Head read_key",
            "._overview": "Figures OVERVIEW_WINDOW Opinion Overview",
            "._prune": "FileSize Pruned prune vacuum",
            "._queries": "RunSummary",
            "._redact": "redact",
            "._store": "TraceStore default_url",
            "._tables": "SCHEMA_VERSION",
            "._verify": "Verification read_head verify",
        },
    )
