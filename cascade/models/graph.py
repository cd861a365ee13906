"""Models of kind `cascade`: another graph, asked as one model (it is run by `cascade.run.nested`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from cascade.config.references import existing_file, file_sha256
from cascade.errors import ConfigError
from cascade.spec.kinds import Access, Evidence, ModelFacts, ModelSettings, settings_sha256


class CascadeSettings(ModelSettings):
    """Another graph as a model: its run is kept as a run of its own, and counts here as one call."""

    kind: Literal["cascade"]
    path: str
    """The other graph's file, relative to this one's folder."""
    local: bool = False
    """True only if all its models are local: local-only requests may go there."""

    def fingerprint(self, base: Path, facts: ModelFacts) -> str:
        """Hash the graph's file."""
        return settings_sha256({"graph": file_sha256(existing_file(self.path, base, "graph"))})

    def build(self, name: str, base: Path, facts: ModelFacts) -> Any:
        """Refuse: running a graph takes a `Cascade`."""
        raise ConfigError(f"model {name!r} is another graph; it can only be asked through Cascade")

    def accesses(self) -> Iterator[Access]:
        """The other graph's file is read; what it does itself is listed apart."""
        yield Access("reads file", self.path)

    def inner_graph(self) -> str | None:
        """Return `path`."""
        return self.path

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """A graph reports the tokens of its answer where its last model does, and no label distribution."""
        if evidence in ("labels", "top_label"):
            return f"model {name!r} has no labels, so there is no distribution over them"
        return None
