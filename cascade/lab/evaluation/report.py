"""A policy's evaluation as one self-contained HTML page without scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from cascade.lab.evaluation.charts import cost_quality, forest, reliability, risk_coverage
from cascade.lab.evaluation.evaluation import CHECKS, Evaluation
from cascade.lab.evaluation.formatting import duration, per_thousand, percent, plain
from cascade.svg import Axis, variables

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


def report_page(evaluation: Evaluation, title: str) -> str:
    """Return the page.

    Args:
        evaluation: what to show.
        title: heading of the page, for instance the policy's file name.
    """
    data = evaluation.as_json()
    name = escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{STYLE}</style></head><body><main><h1>{name}</h1>{_intro(data)}"
        f'<section class="cards">{"".join(_card(data, key) for key in HEADLINES)}</section>'
        f"{_charts(evaluation, _tiers(data))}{_certificates(data)}"
        f"{_models(data)}{_slices(data)}{_notes(data)}"
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
    warning += "".join(f"{escape(remark)}. " for remark in data["remarks"])
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


def _charts(evaluation: Evaluation, tiers: str) -> str:
    charts = [
        ("Cost and accuracy", cost_quality(evaluation), "Up and left is better. Crosses: 95% intervals."),
        ("Reliability", reliability(evaluation), "On the dashed line, confidence means what it says."),
        ("Risk and coverage", risk_coverage(evaluation), "Most confident answers first. Lower is better."),
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
    for certificate in data["certificates"]:
        kind = (
            "error among its answers" if certificate["kind"] == "max_risk" else "loss against the top model"
        )
        observed = _DASH if certificate["observed"] is None else f"{percent(certificate['observed'])}"
        chance = "" if certificate["p_value"] is None else f"<small>p = {certificate['p_value']:.2g}</small>"
        verdict = '<b class="good">✓ held</b>' if certificate["held"] else '<b class="bad">✗ did not hold</b>'
        cells.append(
            [
                escape(certificate["stage"]),
                kind,
                f"≤ {percent(certificate['alpha'])}",
                percent(1 - certificate["delta"]),
                percent(certificate["bound"]),
                f"{observed}<small>{certificate['observed_rows']:,} rows</small>",
                verdict + chance,
            ]
        )
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
    tables = ""
    for name in dict.fromkeys(part["field"] for part in data["slices"]):
        rows = [part for part in data["slices"] if part["field"] == name]
        ends = [end for part in rows for end in (*(part["accuracy_ci"] or ()), part["accuracy"])]
        low, high = min(ends), max(ends)
        axis = Axis("", low, high if high > low else low + 1.0, percent)
        cells = [_slice(part, axis) for part in rows]
        head = [escape(name), "rows", "accuracy", "", "wrong answers", "coverage", "cost"]
        note = "Wrong answers: share of those given. Cost: 1,000 requests."
        tables += _table(f"By {escape(name)}", head, cells, note)
    return tables


def _slice(part: Mapping[str, Any], axis: Axis) -> list[str]:
    def cell(key: str, show: Callable[[float], str]) -> str:
        if part[key] is None:
            return _DASH
        return f"{escape(show(part[key]))}<small>{_interval(part[f'{key}_ci'], show)}</small>"

    drawn = forest(part["accuracy"], part["accuracy_ci"], axis) if part["accuracy_ci"] else ""
    return [
        escape(part["value"]) or "(none)",
        f"{part['rows']:,}",
        cell("accuracy", percent),
        drawn,
        cell("selective_risk", percent),
        cell("coverage", percent),
        per_thousand(part["mean_cost_usd"], ""),
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


STYLE = (
    f"{variables(printed=True)}\n"
    + """
@page{margin:14mm}
*{box-sizing:border-box}
body{margin:0;background:var(--panel);color:var(--ink);line-height:1.45;
 font:15px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;
 print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{max-width:1080px;margin:0 auto;padding:20px 16px 40px}
h1{font-size:1.5rem;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6em 0 .5em}
figure h2{margin-top:0}
.lead{color:var(--soft);margin:.2em 0 1em;overflow-wrap:anywhere}
.warn{background:var(--warn-bg);border-left:4px solid var(--series-4);padding:8px 12px;margin:0 0 1em}
.cards{display:grid;grid-template-columns:repeat(5,1fr);gap:10px}
.card{background:var(--sunk);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.card span,.card small{display:block;color:var(--soft)}.card b{font-size:1.35rem;white-space:nowrap}
small{font-size:.8rem}
.charts{display:grid;align-items:start;grid-template-columns:repeat(2,1fr);gap:16px;margin-top:20px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px}
figure svg:first-of-type{display:block;width:100%;height:auto}
figcaption,.note{color:var(--soft);font-size:.87rem;margin:.4em 0 0}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:.3em 0;padding:0;font-size:.87rem}
.legend li{overflow-wrap:anywhere}
.legend svg.key,figure svg.key{display:inline-block;width:13px;height:13px;margin-right:5px;
 vertical-align:-1px}
table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--line);vertical-align:top;
 font-variant-numeric:tabular-nums}
th{font-weight:600}thead th{color:var(--soft);font-size:.87rem;vertical-align:bottom}
th:first-child{text-align:left;overflow-wrap:anywhere;min-width:6em}
td small,th small{display:block;color:var(--soft);font-weight:400;white-space:nowrap}
.bars td.bar{width:100%;padding:5px 0}
.bars i{display:block;height:18px;background:var(--series-0);border-radius:3px;min-width:1px}
.bars i.none{background:var(--soft)}
.bars th:first-child{white-space:nowrap;max-width:11em;overflow:hidden;text-overflow:ellipsis}
.good{color:var(--good);white-space:nowrap}.bad{color:var(--bad);white-space:nowrap}
svg text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}
svg text.small{font-size:12px;fill:var(--soft)}
svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--soft);stroke-width:1}
svg .rule{stroke:var(--soft);stroke-dasharray:5 4}svg text.rule-text{font-size:12px;fill:var(--soft)}
svg .line{fill:none;stroke-width:2}svg .thin{stroke-width:1.2}svg .dashed{stroke-dasharray:5 4;stroke-width:1}
svg .line.ideal{stroke:var(--soft)}
svg.forest{width:120px;height:16px;margin-top:3px}
.line.s0{stroke:var(--series-0)}.line.s1{stroke:var(--series-1)}.line.s2{stroke:var(--series-2)}.line.s3{stroke:var(--series-3)}
.line.s4{stroke:var(--series-4)}.line.s5{stroke:var(--series-5)}
.dot.s0{fill:var(--series-0)}.dot.s1{fill:var(--series-1)}.dot.s2{fill:var(--series-2)}.dot.s3{fill:var(--series-3)}
.dot.s4{fill:var(--series-4)}.dot.s5{fill:var(--series-5)}
@media (max-width:760px){.cards{grid-template-columns:repeat(2,1fr)}.charts{grid-template-columns:1fr}
 .card b{font-size:1.2rem}main{padding:12px 10px 30px}figure{padding:8px}th,td{padding:5px 6px}}
@media screen and (max-width:600px){.grid thead{display:none}
 .grid tr{display:block;border-bottom:1px solid var(--line);padding:8px 0}
 .grid th,.grid td{display:flex;justify-content:space-between;gap:10px;border:0;padding:2px 0}
 .grid th{font-size:1rem}.grid td::before{content:attr(data-name);color:var(--soft)}
 .grid td small{display:inline-block;margin-left:8px}.grid td:has(svg),.grid td:empty{display:none}}
@media print{.cards{grid-template-columns:repeat(5,1fr);gap:6px}.charts{grid-template-columns:repeat(2,1fr)}
 main{max-width:none;padding:0 2px}.card,figure,tr{break-inside:avoid}
 .card{padding:6px 8px}.card b{font-size:1.15rem}h2{break-after:avoid}body{font-size:10.5pt}
 th,td{padding:4px}.grid{font-size:9.5pt}.grid td small{white-space:normal;font-size:7.5pt}}
"""
)
