"""Questions for a person in the inbox of `kind: human`: waiting runs of a small graph that asks nothing else.

The graph stands beside the one that it asks for. Its runs are stored in the same trace store: the page of a
waiting run, `cascade trace list --status waiting` and `cascade resume` show and answer them, and
`rows_from_traces` reads the answers.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from cascade.config.load import LoadedGraph, load_graph
from cascade.errors import RequestError
from cascade.files import replace_file
from cascade.lab.reading.from_traces import ASKED, asking_name
from cascade.lab.reading.near_duplicates import normal_form
from cascade.run import Cascade
from cascade.trace import RunFilter, default_url, history

_LISTED = 100  # labels in a question


def has_inbox(loaded: LoadedGraph) -> bool:
    """Return whether a graph has a person whose inbox can be asked."""
    return any(model.is_person for model in loaded.graph.models.values())


def put_into_inbox(
    graph: Path, texts: Iterable[str], labels: Sequence[str], trace_db: str | None = None, *, private: bool
) -> tuple[Path, list[str]]:
    """Start a run that waits for a person's label, for each text that none was started for.

    Args:
        graph: the file of a graph with a person.
        texts: the texts to ask about.
        labels: what a person may answer.
        trace_db: the trace store; default: the usual one.
        private: whether the texts must stay on this machine.

    Returns:
        The file of the graph that asks, beside `graph`, and the runs.

    Raises:
        RequestError: the file cannot be written.
        TraceError: the trace store cannot be read or written.
    """
    loaded = load_graph(graph)
    path = graph.with_name(f"{graph.stem}-ask.yaml")
    _write(path, loaded, labels)
    asked = asked_texts(loaded, trace_db)
    new = [text for text in texts if normal_form(text) not in asked]
    with Cascade.load(path, trace_db=trace_db) as cascade:
        return path, [cascade.invoke(text, local_only=private).run for text in new]


def asked_texts(loaded: LoadedGraph, trace_db: str | None = None) -> set[str]:
    """Return the texts, by `normal_form`, that the inbox of a graph has been asked about.

    Raises:
        TraceError: the trace store cannot be read.
    """
    url = default_url() if trace_db is None else trace_db
    runs = history(url, RunFilter(graph=asking_name(loaded.graph.name)))
    return {normal_form(result.request.text) for result in runs}


def _write(path: Path, loaded: LoadedGraph, labels: Sequence[str]) -> None:
    from ruamel.yaml import YAML

    person = next(model for model in loaded.graph.models.values() if model.is_person)
    listed = "\n".join(labels) if len(labels) <= _LISTED else f"(one of {len(labels)} labels)"
    question = f"Which label is right?\n\n{{text}}\n\n{listed.replace('{', '(').replace('}', ')')}"
    settings = {"kind": "human", "tier": person.tier, "local": person.local, "question": question}
    written = {
        "name": asking_name(loaded.graph.name),
        "models": {ASKED: settings},
        "stages": [{"name": "ask", "ask": [ASKED]}],
    }
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(written, stream)
    heading = f"# Made by `cascade learn --ask` for {loaded.graph.name}: asks a person for labels.\n"
    try:
        replace_file(path, (heading + stream.getvalue()).encode())
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}; make its folder writable") from error
