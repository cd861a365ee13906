"""A policy's evaluation as one HTML page, without scripts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from cascade.lab.evaluation.charts import cost_quality, forest, reliability, risk_coverage
from cascade.lab.evaluation.evaluation import CHECKS, Evaluation
from cascade.lab.evaluation.style import STYLE
from cascade.lab.evaluation.words import duration, per_thousand, percent, plain
from cascade.svg import Axis

HEADLINES: dict[str, tuple[str, Callable[[float], str], str]] = {
    "accuracy": ("accuracy", percent, "of all rows answered right"),
    "selective_risk": ("wrong answers", percent, "of the answers given"),
    "coverage": ("coverage", percent, "of the rows answered"),
    "mean_cost_usd": ("cost", lambda usd: per_thousand(usd, ""), "for 1,000 requests"),
    "strong_share": ("strong share", percent, "of the rows asked the last model"),
    "mean_seconds": ("time", duration, "per request, calls in turn"),
    "apgr": ("APGR", plain, "mean gap recovered; random 0.5"),
    "cpt50": ("CPT 50", percent, "strong calls for half the gap"),
    "cpt80": ("CPT 80", percent, "strong calls for 80% of the gap"),
    "error_cost_area": ("error–cost area", plain, "mean error over what one may spend"),
}
_DASH = "—"


def report_page(found: Evaluation, title: str) -> str:
    """Return the page.

    Args:
        found: what to show.
        title: heading of the page, for instance the policy's file name.
    """
    data = found.as_json()
    name = escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{STYLE}</style></head><body><main><h1>{name}</h1>{_intro(data)}"
        f'<section class="cards">{"".join(_card(data, key) for key in HEADLINES)}</section>'
        f"{_charts(found, _tiers(data))}{_certificates(data)}{_models(data)}{_slices(data)}{_notes(data)}"
        "</main></body></html>\n"
    )


def _intro(data: Mapping[str, Any]) -> str:
    goal = data["goal"]
    chain = " → ".join(data["chain"])
    text = f"{chain}. Tuned for {goal['kind'].replace('_', ' ')} {goal['value']:g}"
    text += f" with probability {1 - goal['delta']:g}" if goal.get("delta") is not None else ""
    text += f"; measured on {data['rows']:,} rows. Small print: 95% bootstrap intervals."
    warning = ""
    if data["tuned_on_these_rows"]:
        warning += "The policy was tuned on this very table: these figures flatter it. "
    if data["unknown_rows"]:
        warning += (
            f"{data['unknown_rows']:,} more rows are left out: a model that would be asked has no outcome. "
        )
    return f'<p class="lead">{escape(text)}</p>' + (f'<p class="warn">{warning}</p>' if warning else "")


def _card(data: Mapping[str, Any], key: str) -> str:
    name, show, meaning = HEADLINES[key]
    value, interval = data[key], data[f"{key}_ci"]
    shown = _DASH if value is None else escape(show(value))
    ends = _interval(interval, show) or "cannot be told"
    return (
        f'<div class="card"><span>{escape(name)}</span><b>{shown}</b>'
        f"<small>{ends}</small><small>{escape(meaning)}</small></div>"
    )


def _interval(interval: Sequence[float] | None, show: Callable[[float], str]) -> str:
    return "" if interval is None else f"{escape(show(interval[0]))} to {escape(show(interval[1]))}"


def _charts(found: Evaluation, tiers: str) -> str:
    charts = [
        ("Cost and accuracy", cost_quality(found), "Up and left is better. Crosses: 95% intervals."),
        ("Reliability", reliability(found), "On the dashed line, confidence means what it says."),
        ("Risk and coverage", risk_coverage(found), "Most confident answers first. Lower is better."),
    ]
    figures = (
        f"<figure><h2>{title}</h2>{drawn}<figcaption>{caption}</figcaption></figure>"
        for title, drawn, caption in charts
        if drawn is not None
    )
    return f'<section class="charts">{"".join(figures)}{tiers}</section>'


def _tiers(data: Mapping[str, Any]) -> str:
    rows = ""
    for name, share in data["answered_by"].items():
        kind = ' class="none"' if name == "nobody" else ""
        if share or not kind:
            bar = f'<td class="bar"><i{kind} style="width:{100 * share:.2f}%"></i></td>'
            rows += f'<tr><th scope="row">{escape(name)}</th>{bar}<td>{percent(share)}</td></tr>'
    caption = "<figcaption>Share of all rows, by the model whose answer is given.</figcaption>"
    return f'<figure><h2>Who answers</h2><table class="bars">{rows}</table>{caption}</figure>'


def _certificates(data: Mapping[str, Any]) -> str:
    if not data["certificates"]:
        return ""
    cells = []
    for each in data["certificates"]:
        what = "error among its answers" if each["kind"] == "max_risk" else "loss against the top model"
        seen = _DASH if each["observed"] is None else f"{percent(each['observed'])}"
        chance = "" if each["p_value"] is None else f"<small>p = {each['p_value']:.2g}</small>"
        verdict = '<b class="good">✓ held</b>' if each["held"] else '<b class="bad">✗ did not hold</b>'
        cells.append(
            [escape(each["stage"]), what, f"≤ {percent(each['alpha'])}", percent(1 - each["delta"]),
             percent(each["bound"]), f"{seen}<small>{each['observed_rows']:,} rows</small>", verdict + chance]
        )  # fmt: skip
    head = ["stage", "promise", "at most", "with probability", "certified", "here", ""]
    note = (
        "A promise held if what these rows show is within it. Few rows may show more by chance: p is the "
        "probability of that, or worse, if the promise is true."
    )
    return _table("Certificates", head, cells, note)


def _models(data: Mapping[str, Any]) -> str:
    head = ["model", "accuracy", "cost", "confidence", "AUROC", "AURC", "ECE", "Brier"]
    cells = []
    for name, model in data["models"].items():
        cost = _DASH if model["mean_cost_usd"] is None else per_thousand(model["mean_cost_usd"], "")
        right = _DASH if model["accuracy"] is None else percent(model["accuracy"])
        first = [f"{escape(name)}<small>{model['rows']:,} rows</small>", right, cost]
        for number, check in enumerate([model, *([model["reported"]] if "reported" in model else [])]):
            figures = [_checked(check, key) for key in CHECKS]
            source = {"policy": "policy's", "table": "reported", None: ""}[check["confidence"]]
            start = first if number == 0 else ["", "", ""]
            cells.append([*start, source, *figures])
    note = (
        "Cost: 1,000 requests. Confidences: the policy's, on the rows where it asks the model; "
        "or as the table reports them."
    )
    return _table("Models alone, and their confidence", head, cells, note)


def _checked(check: Mapping[str, Any], key: str) -> str:
    if check[key] is None:
        return _DASH
    ends = check[f"{key}_ci"]
    return plain(check[key]) + (f"<small>{_interval(ends, plain)}</small>" if ends else "")


def _slices(data: Mapping[str, Any]) -> str:
    found = ""
    for name in dict.fromkeys(each["field"] for each in data["slices"]):
        rows = [each for each in data["slices"] if each["field"] == name]
        ends = [end for each in rows for end in (*(each["accuracy_ci"] or ()), each["accuracy"])]
        low, high = min(ends), max(ends)
        axis = Axis("", low, high if high > low else low + 1.0, percent)
        cells = [_slice(each, axis) for each in rows]
        head = [escape(name), "rows", "accuracy", "", "wrong answers", "coverage", "cost"]
        note = "Wrong answers: share of those given. Cost: 1,000 requests."
        found += _table(f"By {escape(name)}", head, cells, note)
    return found


def _slice(each: Mapping[str, Any], axis: Axis) -> list[str]:
    def cell(key: str, show: Callable[[float], str]) -> str:
        if each[key] is None:
            return _DASH
        return f"{escape(show(each[key]))}<small>{_interval(each[f'{key}_ci'], show)}</small>"

    drawn = forest(each["accuracy"], each["accuracy_ci"], axis) if each["accuracy_ci"] else ""
    return [
        escape(each["value"]) or "(none)",
        f"{each['rows']:,}",
        cell("accuracy", percent),
        drawn,
        cell("selective_risk", percent),
        cell("coverage", percent),
        per_thousand(each["mean_cost_usd"], ""),
    ]


def _table(title: str, head: Sequence[str], cells: Sequence[Sequence[str]], note: str) -> str:
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(
            f'<td data-name="{name}"><div>{cell}</div></td>'
            for name, cell in zip(head[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in cells
    )
    return (
        f'<section><h2>{title}</h2><table class="grid"><thead><tr>{top}</tr></thead>'
        f'<tbody>{body}</tbody></table><p class="note">{note}</p></section>'
    )


def _notes(data: Mapping[str, Any]) -> str:
    last = escape(data["chain"][-1])
    return (
        '<section><h2>What the figures mean</h2><p class="note">An abstention counts as not right in '
        f"accuracy. The gap is that between the first answer and {last} alone; APGR and CPT follow RouteLLM "
        "(arXiv 2406.18665): all thresholds move together through 11 quantiles. The error–cost area is the "
        f"mean error over budgets from the cheapest setting to the cost of {last} alone (arXiv 2501.09345). "
        "AUROC: chance that a right answer has more confidence than a wrong one. AURC: mean error over all "
        "coverages. ECE: gap between confidence and accuracy in 15 bins of equal mass. Brier: mean squared "
        "error of the confidence.</p></section>"
    )
