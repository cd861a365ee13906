"""Structured output from a local model, and a cascade as a node of a LangGraph graph.

    python examples/structured.py model.gguf

Give it any GGUF chat model. A grammar made of the schema binds the answer, and the trace tells how sure the
model was of each field.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from cascade import Cascade

GRAPH = """
name: form
models:
  local: {{kind: llamacpp, path: '{path}', max_tokens: 200}}
stages:
  - {{name: only, ask: [local]}}
"""
SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"urgent": {"type": "boolean"}, "team": {"enum": ["billing", "cards", "other"]}},
    "required": ["urgent", "team"],
}


def main(path: str) -> None:
    """Fill the form about one message, then answer another within a graph."""
    graph = Path(tempfile.mkdtemp()) / "form.yaml"
    graph.write_text(GRAPH.format(path=Path(path).resolve()))
    with Cascade.load(graph) as cascade:
        result = cascade.invoke("My card was stolen, help!", output_schema=SCHEMA)
        print(f"{result.status}: {result.text or result.draft}")
        for field in result.trace[0].calls[0].meta.get("fields", []):
            print(f"  {field['field']}: mean log-probability {field['mean']:.2f}, least {field['min']:.2f}")
        outer = StateGraph(MessagesState)
        outer.add_node("cascade", cascade.as_node())
        outer.add_edge(START, "cascade")
        outer.add_edge("cascade", END)
        state = outer.compile().invoke({"messages": [HumanMessage("Hello?")]})
        print(state["messages"][-1].response_metadata["cascade"]["status"])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/structured.py MODEL.gguf")
    main(sys.argv[1])
