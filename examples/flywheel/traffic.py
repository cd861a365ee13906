"""The requests of a month: CLINC150 with a change in the middle, or a small set of our own."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

NEW_LABELS = 0.1  # of the labels that nobody asked for before


class Asked(NamedTuple):
    """A request and its right answer, which only the strongest model is asked for."""

    text: str
    label: str


class Month(NamedTuple):
    """The requests of each day, and the labels that came up on the day of the change only."""

    days: list[list[Asked]]
    new: frozenset[str]

    @property
    def labels(self) -> list[str]:
        """Every label."""
        return sorted({asked.label for day in self.days for asked in day} | self.new)


def make_month(
    rows: Sequence[Asked], *, days: int, requests: int, change: int, new_share: float = 0.3, seed: int = 0
) -> Month:
    """Return `days` days of `requests` requests, each row at most once while there are enough.

    Args:
        rows: labelled texts.
        days: number of days.
        requests: requests a day.
        change: from this day on (1 is the first), requests are of labels, too, that never came before.
        new_share: how many of them.
        seed: seed of the order.
    """
    drawn = random.Random(seed)
    labels = sorted({row.label for row in rows})
    new = frozenset(drawn.sample(labels, max(1, round(NEW_LABELS * len(labels)))))
    known_rows = _endless([row for row in rows if row.label not in new], drawn)
    new_rows = _endless([row for row in rows if row.label in new], drawn)
    month = []
    for day in range(1, days + 1):
        fresh = round(requests * new_share) if day >= change else 0
        today = [next(new_rows) for _ in range(fresh)] + [next(known_rows) for _ in range(requests - fresh)]
        drawn.shuffle(today)
        month.append(today)
    return Month(month, new)


def _endless(rows: list[Asked], drawn: random.Random) -> Iterator[Asked]:
    while True:
        drawn.shuffle(rows)
        yield from rows


def read_clinc150(folder: Path) -> list[Asked]:
    """Return the training and validation rows of CLINC150 (`data_full.json` in `folder`); no test row."""
    data = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    return [Asked(text, label) for part in ("train", "val") for text, label in data[part]]


_OPENINGS = ["", "please ", "can you ", "i want to ", "hi, i need to ", "how do i ", "could you help me "]
_ENDINGS = ["", " today", " as soon as possible", " for my account", " again", " now", ", thanks"]
_REQUESTS = {
    "card_lost": ["report my card as lost", "tell you my card is gone", "block the card i left in a taxi"],
    "card_new": ["order a new card", "get a replacement card", "have another debit card sent out"],
    "pin_change": ["change my pin", "set another pin code", "choose a new number for the cash machine"],
    "balance": ["see my balance", "check how much money i have", "know what is left on the account"],
    "transfer": ["send money to a friend", "make a bank transfer", "wire some cash to my sister"],
    "fees": ["understand this fee", "know why i was charged", "get the charge on my bill explained"],
    "refund": ["get my money back", "ask for a refund", "return this payment to me"],
    "exchange": ["change dollars to euros", "know the exchange rate", "convert my money to yen"],
    "atm": ["find a cash machine", "locate the nearest atm", "take out cash near here"],
    "address": ["update my address", "tell you where i live now", "change the street on my file"],
    "loan": ["borrow some money", "apply for a loan", "ask about credit for a car"],
    "close": ["close my account", "end the contract", "shut everything down and leave the bank"],
}
_VAGUE = {  # what may mean one thing or another, so that nobody can always be right
    "ask about my card": ["card_lost", "card_new", "pin_change"],
    "ask about a payment": ["transfer", "fees", "refund"],
    "do something with my account": ["balance", "address", "close"],
    "get some money": ["atm", "loan", "exchange", "refund"],
    "talk to somebody about it": sorted(_REQUESTS),
}


def own_rows() -> list[Asked]:
    """Return a small set of our own, made of phrases, so that the example runs without any data."""
    drawn = random.Random(0)
    phrases = [(request, [label]) for label, requests in _REQUESTS.items() for request in requests]
    return [
        Asked(f"{opening}{request}{ending}", drawn.choice(labels))
        for request, labels in [*phrases, *_VAGUE.items()]
        for opening, ending in product(_OPENINGS, _ENDINGS)
    ]
