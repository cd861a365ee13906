"""Why a run ended as it did: `explain` collects the facts as records, `render_text` writes them as prose."""

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
