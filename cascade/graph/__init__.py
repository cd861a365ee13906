"""From a checked graph to LangGraph: the call site, the stage, the compiler. Private: see `Cascade.graph`."""
