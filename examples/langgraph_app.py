"""The graphs as LangGraph's own tools load them (langgraph.json names this file)."""

from pathlib import Path

from cascade import Cascade

_graphs = Path(__file__).parents[1] / "graphs"

support = Cascade.load(_graphs / "support.yaml", record=False).graph
banking = Cascade.load(_graphs / "banking.yaml", record=False).graph
threats = Cascade.load(_graphs / "threats.yaml", record=False).graph
desk = Cascade.load(_graphs / "desk.yaml", record=False).graph
