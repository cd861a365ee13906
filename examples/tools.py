"""An application that runs tools for a cascade, through LangChain.

    python examples/tools.py "What is 17 plus 25?"

Two scripted models play the parts, so that it runs anywhere: the small one calls the tool with arguments that
do not fit its schema, so the request escalates by rule `invalid`; the strong one calls it as it should. Put
models of your own into `examples/tools.yaml`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from cascade import Cascade

GRAPH = Path(__file__).with_name("tools.yaml")


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def main(question: str) -> None:
    """Answer `question`, running the tools that the cascade asks for."""
    tools = {add.name: add}
    with Cascade.load(GRAPH) as cascade:
        model = cascade.as_chat_model().bind_tools(list(tools.values()))
        talk: list[BaseMessage] = [SystemMessage("Use the tools."), HumanMessage(question)]
        for _ in range(5):  # most rounds
            answer = model.invoke(talk)
            decided = answer.response_metadata["cascade"]
            for step in decided["steps"]:
                print(f"  {step['stage']}: {step['action']} by rule {step['rule']}")
            talk.append(answer)
            if not answer.tool_calls:
                print(f"{answer.text} ({decided['tier']}, ${decided['cost_usd']:.6f})")
                return
            for call in answer.tool_calls:
                result: ToolMessage = tools[call["name"]].invoke(call)
                print(f"{call['name']}({call['args']}) = {result.content}")
                talk.append(result)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "What is 17 plus 25?")
