"""Why a run ended as it did: `explain` collects the facts as records, `render_text` writes them as prose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names

if TYPE_CHECKING:
    from cascade.explain._explain import explain
    from cascade.explain._records import (
        SKIPPED,
        AnswerSummary,
        BaselineComparison,
        CallSummary,
        Comparison,
        DraftSummary,
        Explanation,
        Saved,
        Scored,
        Spared,
        StepExplanation,
        WhatIf,
        compare,
    )
    from cascade.explain._text import (
        describe,
        describe_fact,
        render_text,
        step_sentences,
        step_verdict,
        total_sentences,
        what_if_sentence,
    )

__all__ = [
    "SKIPPED",
    "AnswerSummary",
    "BaselineComparison",
    "CallSummary",
    "Comparison",
    "DraftSummary",
    "Explanation",
    "Saved",
    "Scored",
    "Spared",
    "StepExplanation",
    "WhatIf",
    "compare",
    "describe",
    "describe_fact",
    "explain",
    "render_text",
    "step_sentences",
    "step_verdict",
    "total_sentences",
    "what_if_sentence",
]

if not TYPE_CHECKING:  # `formatting` is used without the rest
    __getattr__ = lazy_names(
        __name__,
        {
            "._explain": "explain",
            "._records": (
                "SKIPPED AnswerSummary BaselineComparison CallSummary Comparison DraftSummary Explanation "
                "Saved Scored Spared StepExplanation WhatIf compare"
            ),
            "._text": (
                "describe describe_fact render_text step_sentences step_verdict total_sentences "
                "what_if_sentence"
            ),
        },
    )
