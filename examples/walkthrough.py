"""A walk through a cascade, cell by cell: open it as a notebook (VS Code, Jupytext) or run it as a script."""

# %% [markdown]
# ## Load a graph
# The support graph asks its smallest expert first. Only where the calibrated confidence is too low does the
# request climb to a larger local expert, and then to a remote model, if a key is set.

# %%
from pathlib import Path

from cascade import Cascade

graphs = Path(__file__).parents[1] / "graphs"
support = Cascade.load(graphs / "support.yaml")
print(support.graph.get_graph().draw_mermaid())

# %% [markdown]
# ## Ask
# `invoke` also works where an event loop is already running, as in a notebook. The smallest expert is not
# sure enough of this one; the larger one is.

# %%
result = support.invoke("Will my shaver fit the wall socket in Dublin?", local_only=True)
print(result.status, result.text, result.confidence, result.tier)

# %% [markdown]
# ## See why
# Every step holds the calls, the raw signals, the calibrated confidence and the rule that decided.

# %%
for step in result.trace:
    print(step.stage, "→", step.decision.action, step.decision.rule, step.decision.threshold)
    if step.estimate:
        print("   signals:", {name: round(value, 3) for name, value in step.estimate.signals.items()})
    for call in step.calls:
        best = sorted((call.labels or {}).items(), key=lambda item: -item[1])[:3]
        print(f"   {call.model}: {best} in {call.seconds * 1e3:.1f} ms")

# %% [markdown]
# ## Many at once
# Order is kept and concurrency is bounded. Where no expert is sure enough, the run abstains and keeps its
# best draft.

# %%
messages = ["freeze my card please", "how do I bleed a radiator", "will it rain in Leeds tomorrow"]
for text, answer in zip(messages, support.batch(messages, local_only=True), strict=True):
    print(f"{text:<40} {answer.status:<10} {answer.text or answer.draft}")

# %%
support.close()
