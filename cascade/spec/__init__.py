"""The graph language: what a graph file may say, as strict pydantic models. Private: see `docs/graph.md`."""
