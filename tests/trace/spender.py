"""A process that spends from a budget until it is empty: `python spender.py URL LIMIT`; prints what it spent.

With `die`, it reserves once and exits at once, like a killed process.
"""

from __future__ import annotations

import os
import sys

from cascade.policy.budget import Budget
from cascade.trace import BudgetBook, Reservation


def main(url: str, limit: float, die: bool) -> None:
    book = BudgetBook(url)
    budgets = [Budget("graph:g", limit), Budget("account:a", limit)]
    spent = turn = 0
    while isinstance(reservation := book.reserve(budgets, 0.01).result(), Reservation):
        if die:
            os._exit(9)
        paid = (turn % 3) * 5  # thousandths: nothing, half, all of the worst case
        book.settle(reservation, paid / 1000).result()
        spent, turn = spent + paid, turn + 1
    book.close()
    print(spent)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[-1] == "die")
