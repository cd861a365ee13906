"""`cascade tune`: from an outcome table to a policy that keeps a promise, or an honest refusal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.rows import LabelColumn, PromptColumn, warn_of_labels
from cascade.errors import RequestError

if TYPE_CHECKING:
    from cascade.lab import Goal, Outcomes, Policy, Refusal
    from cascade.policy.artifact import Certificate

REFUSED = 3  # exit status: the rows do not support the promise


def tune(
    outcomes: Annotated[Path, typer.Option(help="Outcome table: .jsonl, .csv, .tsv or .parquet.")],
    out: Annotated[Path, typer.Option(help="Policy file to write.")],
    text_column: PromptColumn = None,
    label_column: LabelColumn = None,
    chain: Annotated[
        str | None, typer.Option(help="Models that may take part, in order: a,b,c; default: all, by cost.")
    ] = None,
    max_risk: Annotated[
        float | None,
        typer.Option(help="Promise: at most this share of what a checked stage accepts is wrong."),
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Promise: accuracy at most this much under the top model's.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Chance that a promise may be broken.")] = 0.05,
    budget: Annotated[
        float | None, typer.Option(help="Most accurate within this mean cost of a request, in USD.")
    ] = None,
    lambda_: Annotated[
        float | None, typer.Option("--lambda", help="Quality that one US dollar is worth.")
    ] = None,
    abstention_price: Annotated[
        float | None,
        typer.Option(help="With --lambda: what no answer is worth, in quality; a wrong one is 0."),
    ] = None,
    from_policy: Annotated[
        Path | None, typer.Option(help="Older policy: kept if it keeps the promise on these rows.")
    ] = None,
    graph: Annotated[
        Path | None,
        typer.Option(help="Graph that made OUTCOMES: its policy is refused once a model changed."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and the folds.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Tune a policy on OUTCOMES for one goal: --max-risk, --max-loss, --budget or --lambda.

    Exit status 3: the rows do not support the promise; nothing is written.
    """
    values = {"max_risk": max_risk, "max_loss": max_loss, "budget": budget, "lambda": lambda_}
    goal = _goal(values, delta, abstention_price)
    from cascade import lab

    names = [name.strip() for name in chain.split(",")] if chain is not None else None
    table = lab.read_outcomes(outcomes, text_column, label_column)
    if graph is not None:
        from cascade.config.load import load_graph

        loaded = load_graph(graph, tuned=False, tightened=False)
        warn_of_labels(table.fields.get("label", ()), loaded, outcomes)
    policy = lab.tune(table, goal, chain=names, seed=seed, old=from_policy, graph=graph, out=out)
    if isinstance(policy, lab.Refusal):
        _print_refusal(policy, json_)
        raise typer.Exit(REFUSED)
    _print(policy, table, out, json_)


def _goal(values: dict[str, float | None], delta: float, abstention_price: float | None) -> Goal:
    given = [(kind, value) for kind, value in values.items() if value is not None]
    if len(given) != 1:
        raise RequestError("give exactly one goal: --max-risk, --max-loss, --budget or --lambda")
    kind, value = given[0]
    option = f"--{kind.replace('_', '-')}"
    promise = kind in ("max_risk", "max_loss")
    if not math.isfinite(value) or value < 0 or (promise and not 0 < value < 1):
        expected = "a number between 0 and 1" if promise else "a number of at least 0"
        raise RequestError(f"{option} is {value:g}; expected {expected}")
    if not 0 < delta < 1:
        raise RequestError(f"--delta is {delta:g}; expected a number between 0 and 1")
    if abstention_price is not None and (kind != "lambda" or not 0 <= abstention_price <= 1):
        raise RequestError(
            f"--abstention-price is {abstention_price:g}; expected 0 to 1, together with --lambda"
        )
    from cascade.policy.artifact import Goal

    return Goal.model_validate(
        {
            "kind": kind,
            "value": value,
            "delta": delta if promise else None,
            "abstention_price": abstention_price,
        }
    )


def _print_refusal(refusal: Refusal, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"refused": refusal.reason, "rows_needed": refusal.rows}))
        return
    rows_needed = "" if refusal.rows is None else f"; about {refusal.rows:,} would, if they are like these"
    print(f"refused: {refusal.reason}{rows_needed}")


def _print(policy: Policy, table: Outcomes, out: Path, as_json: bool) -> None:
    import numpy as np

    from cascade.policy.apply import apply_policy

    decisions = apply_policy(policy, table)
    share = {name: float((decisions.answered_by == i).mean()) for i, name in enumerate(policy.chain)}
    cost, abstained = float(np.nanmean(decisions.cost_usd)), float((decisions.answered_by == -1).mean())
    if as_json:
        certificates = [certificate.model_dump(mode="json") for certificate in policy.certificates]
        print(
            json.dumps(
                {
                    "policy": str(out),
                    "chain": policy.chain, "certificates": certificates, "answered": share,
                    "abstained": abstained, "mean_cost_usd": cost, "changes": policy.changes,
                }
            )
        )  # fmt: skip
        return
    for stage in policy.stages:
        rule = stage.accept if isinstance(stage.accept, str) else f"at score {stage.accept:.4f}"
        print(f"{stage.model}: accepts {rule}, answers {share[stage.model]:.1%}")
    if policy.gate is not None:
        print(f"gate: prompts that score {policy.gate.skip_at:.4f} or more go to {policy.gate.to} at once")
    if abstained:
        print(f"abstains: {abstained:.1%}")
    print(f"mean cost: ${cost:.6f} a request, on all {len(table)} rows")
    for certificate in policy.certificates:
        print(f"certificate: {_describe(certificate)}")
    for change in policy.changes:
        print(f"changed: {change}")
    print(f"written: {out}")


def _describe(certificate: Certificate) -> str:
    if certificate.kind == "max_loss":
        counts = f"{certificate.errors} errors, {certificate.gains} gained"
    else:
        counts = f"{certificate.errors} errors of {certificate.accepted} accepted"
    return (
        f"{certificate.stage}, {certificate.kind} {certificate.alpha:g}: bound {certificate.bound:.4f} "
        f"with probability {1 - certificate.delta:g} ({counts}; {certificate.rows} held-out rows)"
    )
