"""Loading the models of a graph before a batch, so that no row's time holds that of loading one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cascade.errors import CascadeError

if TYPE_CHECKING:
    from cascade.models.base import Model
    from cascade.run import Cascade

_TEXT = "hello"


async def load_weights(model: Model) -> None:
    """Ask a local model one short question, which loads its file.

    Raises:
        ModelError: it gave no answer.
    """
    from cascade.models.base import Prompt

    await model.ask(Prompt(_TEXT, stop_early=lambda _: True))


async def warm(cascade: Cascade) -> None:
    """Load the models that the graph's stages and gates ask, if their files are on this machine.

    One that cannot be loaded is left to the rows that ask it: they record why.
    """
    from cascade.models.base import deployments

    graph, base = cascade.config, cascade.loaded.base
    names = (
        name
        for stage in graph.stages
        for name in (*stage.gate_models, *stage.ask, *stage.tried_models.values())
    )
    for name in dict.fromkeys(names):
        if graph.models[name].file_is_here(base):
            for model in deployments(cascade.models[name]):
                with contextlib.suppress(CascadeError):
                    await load_weights(model)
