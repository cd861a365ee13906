"""`cascade evaluate`: measure a policy on an outcome table that it was not tuned on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.rows import LabelColumn, PromptColumn
from cascade.errors import RequestError
from cascade.explain.formatting import json_text
from cascade.files import replace_file

if TYPE_CHECKING:
    from rich.console import Console

    from cascade.lab import Evaluation


def evaluate(
    outcomes: Annotated[Path, typer.Option(help="Outcome table: .jsonl, .csv, .tsv or .parquet.")],
    policy: Annotated[Path, typer.Option(help="Policy file ('cascade tune').")],
    text_column: PromptColumn = None,
    label_column: LabelColumn = None,
    by: Annotated[list[str] | None, typer.Option(help="Field to slice by; may be given again.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap intervals.")] = 0,
) -> None:
    """Measure a policy: accuracy, cost, coverage, risk, routing, slices, and whether promises held."""
    from cascade import lab

    table = lab.read_outcomes(outcomes, text_column, label_column)
    evaluation = lab.evaluate(policy, table, by=list(dict.fromkeys(by or [])), seed=seed)
    data = {"policy": str(policy), "outcomes": str(outcomes), **evaluation.as_json()}
    if report is not None:
        _write_report(evaluation, f"{policy.name} on {outcomes.name}", report)
    if data["tuned_on_these_rows"]:
        print("note: the policy was tuned on this very table; its figures flatter it", file=sys.stderr)
    for remark in evaluation.remarks:
        print(f"warning: {remark}", file=sys.stderr)
    if json_:
        print(json_text(data, allow_nan=False))
    else:
        _print(data)
        if report is not None:
            print(f"report  {report}")


def _write_report(evaluation: Evaluation, title: str, target: Path) -> None:
    from cascade.lab import report_page

    try:
        replace_file(target, report_page(evaluation, title).encode(errors="backslashreplace"))
    except OSError as error:
        raise RequestError(f"{target}: {error.strerror}; give a writable file for --report") from None


def _print(data: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    left_out = f", {data['unknown_rows']} more cannot be known" if data["unknown_rows"] else ""
    console.print(f"{' → '.join(data['chain'])} on {data['rows']} rows{left_out}", soft_wrap=True)
    _print_figures(console, data)
    _print_models(console, data)
    _print_slices(console, data)
    for certificate in data["certificates"]:
        observed = "nothing" if certificate["observed"] is None else f"{certificate['observed']:.2%}"
        probability = f"with probability {1 - certificate['delta']:g}"
        promise = f"{certificate['kind']} ≤ {certificate['alpha']:.2%} {probability}"
        verdict = "held" if certificate["held"] else "DID NOT HOLD"
        rows = f"{certificate['observed_rows']} rows"
        console.print(
            f"certificate {certificate['stage']}: {promise}: {verdict} ({observed} here, {rows})",
            soft_wrap=True,
        )


def _print_figures(console: Console, data: dict[str, Any]) -> None:
    from cascade.lab.evaluation.report import HEADLINES

    rows = []
    for name, (title, show, meaning) in HEADLINES.items():
        value, interval = data[name], data[f"{name}_ci"]
        ends = f"{show(interval[0])} to {show(interval[1])}" if interval else "—"
        rows.append([title, "—" if value is None else show(value), ends, meaning])
    _table(console, ["figure", "value", "95% interval", "meaning"], rows, text=(0, 3))
    shares = ", ".join(f"{name} {share:.1%}" for name, share in data["answered_by"].items())
    console.print(f"answered by: {shares}", soft_wrap=True)


def _print_models(console: Console, data: dict[str, Any]) -> None:
    from cascade.lab.evaluation.evaluation import CHECKS
    from cascade.lab.evaluation.formatting import per_thousand, percent

    rows = []
    for name, model in data["models"].items():
        right = "—" if model["accuracy"] is None else percent(model["accuracy"])
        cost = "—" if model["mean_cost_usd"] is None else per_thousand(model["mean_cost_usd"], "")
        for check in [model, *([model["reported"]] if "reported" in model else [])]:
            figures = [_checked(check, key) for key in CHECKS]
            rows.append([name, right, cost, check["confidence"] or "—", *figures])
    head = ["model alone", "accuracy", "cost of 1,000", "confidence of", "AUROC", "AURC", "ECE", "Brier"]
    _table(console, head, rows, text=(0, 3))


def _checked(check: dict[str, Any], key: str) -> str:
    from cascade.lab.evaluation.formatting import plain

    if check[key] is None:
        return "—"
    ends = check[f"{key}_ci"]
    return plain(check[key]) + (f" ({plain(ends[0])} to {plain(ends[1])})" if ends else "")


def _print_slices(console: Console, data: dict[str, Any]) -> None:
    from cascade.lab.evaluation.formatting import per_thousand, percent

    rows = []
    for part in data["slices"]:
        low, high = part["accuracy_ci"]
        risk = "—" if part["selective_risk"] is None else percent(part["selective_risk"])
        figures = [percent(part["accuracy"]), f"{percent(low)} to {percent(high)}", risk]
        cost = per_thousand(part["mean_cost_usd"], "")
        rows.append([f"{part['field']} {part['value']}", str(part["rows"]), *figures, cost])
    if rows:
        head = ["slice", "rows", "accuracy", "95% interval", "wrong answers", "cost of 1,000"]
        _table(console, head, rows, text=(0,))


def _table(console: Console, head: list[str], rows: list[list[str]], text: tuple[int, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number in text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
