"""From this package's records to OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from cascade.explain import describe
from cascade.policy.result import answer_call, person_next
from cascade.records import Result, ToolCall
from cascade.serve.openai.errors import ApiError
from cascade.spec.schema import Graph


def refusal(result: Result) -> str | None:
    """Return why there is no answer; None if there is one."""
    if result.status in ("accepted", "best_effort"):
        return None
    if result.status == "waiting":
        return f"run {result.run} waits for a person; its answer will be at /v1/runs/{result.run}"
    return f"no answer was good enough (rule {result.rule}); see /v1/runs/{result.run}"


def refused(result: Result, graph: Graph) -> ApiError | None:
    """Return the error of a run that failed for a temporary reason, or because of its account; else None."""
    if result.status == "waiting" and not person_next(graph, result.trace):
        text = f"the server stops; run {result.run} is kept and goes on with `cascade resume {result.run}`"
        return ApiError(503, text, code="draining", retry_after=1.0)
    if result.status != "abstained":
        return None
    if any(step.decision.rule == "over_budget" for step in result.trace):
        decision = next(s.decision for s in result.trace if s.decision.rule == "over_budget")
        return ApiError(429, f"run {result.run}: {describe(decision)}", code="insufficient_quota")
    calls = [call for step in result.trace for call in step.calls if call.role == "answer"]
    if calls and all(call.meta.get("refused") == "busy" for call in calls):
        return ApiError(429, f"run {result.run}: {calls[-1].error}", code="busy", retry_after=1.0)
    return None


def usage(results: Iterable[Result]) -> dict[str, int]:
    """Return the token counts of all calls, including rejected drafts and gates."""
    calls = [call for result in results for step in result.trace for call in step.calls]
    tokens_in, tokens_out = sum(call.tokens_in for call in calls), sum(call.tokens_out for call in calls)
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def decision_summary(result: Result) -> dict[str, Any]:
    """Return the `cascade` field of an answer, an extension: what was decided, and what it cost."""
    return {
        "run": result.run,
        "status": result.status,
        "rule": result.rule,
        "tier": result.tier,
        "model": result.model,
        "stage": result.stage,
        "confidence": result.confidence,
        "calibrated": result.calibrated,
        "cost_usd": result.cost_usd,
        "steps": [
            {
                "stage": step.stage,
                "action": step.decision.action,
                "rule": step.decision.rule,
                "confidence": step.estimate.confidence if step.estimate is not None else None,
                "threshold": step.decision.threshold,
            }
            for step in result.trace
        ],
    }


def tool_calls(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    """Return tool calls as a chat completion has them."""
    return [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in calls
    ]


def logprobs(result: Result, length: int | None = None) -> dict[str, Any] | None:
    """Return the answer's token log-probabilities; None where its model reports none.

    Args:
        result: the run.
        length: how many characters of the answer are given; None: all.
    """
    call = answer_call(result)
    if call is None or not call.tokens:
        return None
    starts = accumulate((len(token.text) for token in call.tokens), initial=0)
    given = [t for t, start in zip(call.tokens, starts, strict=False) if length is None or start < length]
    tokens = [
        # JSON has no infinity; OpenAI uses -9999.0 for what is practically impossible.
        {
            "token": token.text,
            "logprob": max(token.logprob, -9999.0),
            "bytes": list(token.text.encode("utf-8", "replace")),
            "top_logprobs": [],
        }
        for token in given
    ]
    return {"content": tokens, "refusal": None}
