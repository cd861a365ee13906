"""Billing mails with known fields: many phrasings, of which some can be kept for the test.

All names, numbers and texts are made here; none of them is anybody's. Each part of a mail (the total, the due
date …) has a pool of phrasings, in labelled lines and in prose, and every mail carries distractors: other
amounts, other dates, other numbers, other companies. `mails(held_out=True)` uses only phrasings, company
names and layouts that `mails(held_out=False)` of the same `split` never uses.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["invoice", "reminder", "credit_note", "quote"]},
        "vendor": {"type": "string", "minLength": 2},
        "number": {"type": "string"},
        "issued": {"type": "string", "format": "date"},
        "due": {"type": ["string", "null"], "format": "date"},
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD", "GBP", "CHF"]},
        "units": {"type": ["integer", "null"]},
        "paid": {"type": "boolean"},
    },
    "required": ["kind", "vendor", "number", "issued", "due", "total", "currency", "units", "paid"],
    "additionalProperties": False,
}

POOLS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
MONEY = {
    "EUR": ("{n} EUR", "EUR {n}", "€{n}", "{n} €", "€ {n}"), "USD": ("${n}", "USD {n}", "$ {n}", "US${n}"),
    "GBP": ("£{n}", "GBP {n}", "£ {n}"), "CHF": ("CHF {n}", "{n} CHF", "Fr. {n}"),
}  # fmt: skip
GROUPS = {"EUR": (".,", " ,", "x,", ",."), "USD": (",.", "x."), "GBP": (",.", "x."), "CHF": ("'.", "x.")}
DATES = {
    "EUR": ("%d.%m.%Y", "%Y-%m-%d", "%d/%m/%Y", "%-d %B %Y"), "USD": ("%m/%d/%Y", "%B %-d, %Y", "%b %-d, %Y"),
    "GBP": ("%d/%m/%Y", "%-d %B %Y", "%-d %b %Y"), "CHF": ("%d.%m.%Y", "%Y-%m-%d", "%-d %B %Y"),
}  # fmt: skip


class Mail(NamedTuple):
    """A mail and its fields."""

    text: str
    answer: dict[str, Any]


def mails(count: int, *, seed: int, split: int, held_out: bool) -> list[Mail]:
    """Return mails; the same seed gives the same ones.

    Args:
        count: how many.
        seed: of their contents.
        split: of the phrasings into those of training and those that are held out, three in ten.
        held_out: use the phrasings that are held out.
    """
    maker = _Maker(random.Random(f"{seed} {held_out}"), split, held_out)
    return [maker.mail() for _ in range(count)]


class _Maker:
    def __init__(self, draw: random.Random, split: int, held_out: bool) -> None:
        self._draw, self._split, self._held_out = draw, split, held_out
        self._style: dict[str, str] = {}

    def mail(self) -> Mail:
        draw = self._draw
        kind = draw.choice(list(POOLS["docs"]))
        currency = draw.choices(list(MONEY), (5, 3, 2, 1))[0]
        self._style = {
            "money": draw.choice(MONEY[currency]), "groups": draw.choice(GROUPS[currency]),
            "date": draw.choice(DATES[currency]),
        }  # fmt: skip
        issued = dt.date(2026, 1, 1) + dt.timedelta(draw.randrange(700))
        due = None if draw.random() < 0.3 else issued + dt.timedelta(draw.choice((7, 10, 14, 21, 30, 45, 60)))
        answer: dict[str, Any] = {
            "kind": kind, "vendor": self._company(), "number": self._number(), "issued": issued.isoformat(),
            "due": None if due is None else due.isoformat(), "total": self._amount(), "currency": currency,
            "units": None if draw.random() < 0.5 else draw.randrange(2, 400), "paid": draw.random() < 0.4,
        }  # fmt: skip
        return Mail(self._written(answer, issued, due), answer)

    def _written(self, answer: dict[str, Any], issued: dt.date, due: dt.date | None) -> str:
        draw = self._draw
        doc = draw.choice(POOLS["docs"][answer["kind"]])
        words = {
            "vendor": answer["vendor"], "number": answer["number"], "doc": doc, "Doc": doc.capitalize(),
            "issued": self._date(issued), "due": "" if due is None else self._date(due),
            "total": self._money(answer["total"]), "units": str(answer["units"]), "customer": self._company(),
            "person": draw.choice(POOLS["people"]), "city": draw.choice(POOLS["cities"]),
        }  # fmt: skip
        parts = ["number", "issued", "total", "paid" if answer["paid"] else "unpaid"]
        parts += ["due"] * (due is not None) + ["units"] * (answer["units"] is not None)
        labelled = draw.random() < 0.55
        pool, noise = (
            (POOLS["labels"], POOLS["noise_labels"]) if labelled else (POOLS["prose"], POOLS["noise_prose"])
        )
        lines = [self._pick(part, pool[part]) for part in parts]
        lines += [self._noise(noise) for _ in range(draw.randrange(2, 6))]
        draw.shuffle(lines)
        body = ("\n" if labelled else " ").join(lines)
        subject, greeting = self._pick("subject", POOLS["subjects"]), draw.choice(POOLS["greetings"])
        opening = self._pick(answer["kind"], POOLS["openings"][answer["kind"]])
        closing = self._pick("closing", POOLS["closings"])
        text = f"Subject: {subject}\n{greeting}\n\n{opening}\n\n{body}\n\n{closing}"
        return text.format(**words)

    def _pick(self, name: str, pool: Sequence[str]) -> str:
        """Draw of a pool's phrasings those that this mail may use."""
        order = list(pool)
        random.Random(f"{self._split} {name} {pool[0]}").shuffle(order)
        kept = round(0.7 * len(order))
        return self._draw.choice(order[kept:] if self._held_out else order[:kept])

    def _noise(self, pool: Sequence[str]) -> str:
        draw = self._draw
        day = dt.date(2026, 1, 1) + dt.timedelta(draw.randrange(700))
        return self._pick("noise", pool).format(
            other=self._number(), digits=draw.randrange(10**8, 10**9), amount=self._money(self._amount()),
            date=self._date(day), person=draw.choice(POOLS["people"]), small=draw.randrange(10, 99),
        )  # fmt: skip

    def _company(self) -> str:
        first, second = self._pick("first", POOLS["first"]), self._pick("second", POOLS["second"])
        glue = "" if second[0].islower() else " "
        return f"{first}{glue}{second} {self._draw.choice(POOLS['suffix'])}".strip()

    def _number(self) -> str:
        draw = self._draw
        digits, year = draw.randrange(100, 10**6), draw.choice(("2026", "26", "2027"))
        form = draw.choice(
            ("RE-{y}-{d}", "{d}", "INV{d}", "{y}/{d}", "F-{d}", "{y}-{d}", "A{d}-{k}", "{k}.{d}")
        )
        return form.format(y=year, d=digits, k=draw.randrange(10, 99))

    def _amount(self) -> float:
        whole = int(10 ** self._draw.uniform(1.2, 4.6))
        return round(whole + self._draw.choice((0.0, 0.5, 0.99, self._draw.random())), 2)

    def _money(self, value: float) -> str:
        mark, point = self._style["groups"][0], self._style["groups"][1]
        written = f"{value:,.2f}".replace(",", "\0").replace(".", point)
        return self._style["money"].format(n=written.replace("\0", "" if mark == "x" else mark))

    def _date(self, day: dt.date) -> str:
        return day.strftime(self._style["date"])


def rows(found: Sequence[Mail]) -> Iterator[dict[str, Any]]:
    """Yield the mails as the rows that `cascade learn --schema` reads."""
    for mail in found:
        yield {"text": mail.text, "answer": mail.answer}
