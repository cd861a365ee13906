"""A plan as one self-contained HTML page without scripts, for whoever decides."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cascade.lab.evaluation.formatting import duration, percent
from cascade.lab.evaluation.report import STYLE
from cascade.lab.planning.charts import first_year, over_time, tornado
from cascade.lab.planning.plan import Choice, Plan
from cascade.lab.planning.verdict import amount, between, day_text, headline, number, reason, verdict

_STYLE = """
.verdict{font-size:1.05rem;max-width:56em;margin:1.2em 0;padding-left:1.2em}
.verdict li{margin:.25em 0;overflow-wrap:anywhere}
.cards{grid-template-columns:repeat(auto-fit,minmax(165px,1fr))!important}
.grid td:nth-child(n){white-space:nowrap}.grid td.words{white-space:normal;text-align:left}
.grid th[scope=row]{white-space:nowrap}.grid th.words{text-align:left}.card b{white-space:normal!important}
.remarks{margin:0;padding-left:1.1em}.remarks li{margin:.35em 0;overflow-wrap:anywhere}
.fill.s0{fill:var(--series-0)}.fill.s2{fill:var(--series-2)}.fill.s3{fill:var(--series-3)}
.fill.s4{fill:var(--series-4)}
svg .whisker{stroke:var(--ink);stroke-width:1.6}svg .axis{fill:none}svg .rule{fill:none}
svg .cross{stroke:var(--soft);stroke-dasharray:4 4}svg circle.dot{fill:var(--ink)}
svg text.dot-text{font-weight:600}
@media print{.cards{grid-template-columns:repeat(5,1fr)!important}.card b{font-size:1rem!important}}
@media screen and (max-width:600px){.grid td.words{text-align:right}
 .cards{grid-template-columns:repeat(2,minmax(0,1fr))!important}.grid th[scope=row]{white-space:normal}}
"""


def plan_page(plan: Plan) -> str:
    """Return the page."""
    title = f"Build or buy: {escape(plan.subject)}"
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdict(plan)[1:])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{STYLE}{_STYLE}</style></head><body><main>"
        f'<p class="lead">{title}</p><h1>{escape(headline(plan))}</h1>'
        f'<p class="lead">{escape(reason(plan))}</p>'
        f'<section class="cards">{_cards(plan)}</section><ul class="verdict">{sentences}</ul>'
        f'{_options(plan)}<section class="charts">{_charts(plan)}</section>'
        f"{_inputs(plan)}</main></body></html>\n"
    )


def _cards(plan: Plan) -> str:
    chosen = [choice for choice in (plan.buy, plan.choice("cascade"), plan.build) if choice is not None]
    cards = [
        _card(choice.option.name, amount(choice.year_usd.value), _interval(choice), "a year, once it runs")
        for choice in chosen
    ]
    ends = f"{day_text(plan.break_even_low)} to {day_text(plan.break_even_high)}" if plan.drawn else ""
    cards.append(
        _card("expert has paid for itself", day_text(plan.break_even), ends, "against one strong model")
    )
    off = " → ".join(percent(choice.leaves) for choice in chosen)
    cards.append(_card("requests that leave", off, "", " → ".join(choice.option.name for choice in chosen)))
    return "".join(cards)


def _card(name: str, value: str, ends: str, meaning: str) -> str:
    interval = f"<small>{escape(ends)}</small>" if ends else ""
    return (
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b>{interval}'
        f"<small>{escape(meaning)}</small></div>"
    )


def _interval(choice: Choice) -> str:
    cost = choice.year_usd
    if cost.low is None or cost.high is None or cost.low == cost.high:
        return ""
    return f"{amount(cost.low)} to {amount(cost.high)}"


def _options(plan: Plan) -> str:
    rows = []
    for choice in plan.choices:
        latency = choice.latency
        rows.append(
            [
                choice.option.name, between(choice.year_usd), amount(float(choice.option.once_usd)),
                between(choice.first_year_usd), duration(latency.median), duration(latency.p95),
                percent(choice.leaves),
            ]
        )  # fmt: skip
    head = ["way to answer", "a year", "once", "first year", "median time", "19 of 20 within", "leaves"]
    note = (
        "Leaves: share of the requests that are sent off your machine. Times are measured where runs are "
        "stored; those of a model alone are of the requests that reached it. Brackets: 95% intervals."
    )
    return f'<h2>Money, time and privacy</h2>{_table(head, rows)}<p class="note">{note}</p>'


def _charts(plan: Plan) -> str:
    charts = [
        ("The first year", first_year(plan), "Building included. Lines across the bars: 95% intervals."),
        ("Spent by each day", over_time(plan), "Where lines cross, one option has become cheaper."),
    ]
    if plan.swings:
        caption = (
            "Each assumption moves alone. Dashed: as assumed. Left of zero, buying is cheaper. "
            "* no range is known: moved by a quarter."
        )
        charts.append(("What the answer hinges on", tornado(plan), caption))
    figures = "".join(
        f"<figure><h2>{title}</h2>{drawn}<figcaption>{caption}</figcaption></figure>"
        for title, drawn, caption in charts
    )
    return figures + _remarks(plan)


def _inputs(plan: Plan) -> str:
    rows = []
    for each in plan.inputs.by_name.values():
        ends = "" if each.low is None or each.high is None else f"{number(each.low)} to {number(each.high)}"
        rows.append([each.name, number(each.value), ends, each.source, each.meaning])
    head = ["number", "value", "range", "from", "meaning"]
    return f"<h2>What it stands on</h2>{_table(head, rows, words=(4,))}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: tuple[int, ...] = ()) -> str:
    names = "".join(
        f'<th scope="col"{_class(index in words)}>{escape(name)}</th>' for index, name in enumerate(head)
    )
    body = ""
    for row in rows:
        cells = "".join(
            f'<td{_class(index in words)} data-name="{escape(head[index])}">{escape(cell)}</td>'
            for index, cell in enumerate(row[1:], start=1)
        )
        body += f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>'
    return f'<table class="grid"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'


def _class(words: bool) -> str:
    return ' class="words"' if words else ""


def _remarks(plan: Plan) -> str:
    items = "".join(f"<li>{escape(remark)}</li>" for remark in plan.remarks)
    return f'<figure><h2>What to know about these figures</h2><ul class="remarks">{items}</ul></figure>'
