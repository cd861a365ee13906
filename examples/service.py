"""A FastAPI service around a cascade: one endpoint to ask, one to see why.

Run: uvicorn --app-dir examples service:app    (needs: pip install "cascade-moe[serve]")
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from cascade import Cascade, RequestError, Result

GRAPH = Path(__file__).parents[1] / "graphs" / "support.yaml"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the cascade once, when the service starts, and release it when the service stops."""
    async with Cascade.load(GRAPH) as cascade:
        app.state.cascade = cascade
        yield


app = FastAPI(title="Support intents", lifespan=lifespan)


class Question(BaseModel):
    """The body of a question."""

    text: str
    local_only: bool = True


def loaded(request: Request) -> Cascade:
    """Return the service's cascade."""
    cascade = request.app.state.cascade
    if not isinstance(cascade, Cascade):
        raise TypeError("the cascade is not loaded; start the app with its lifespan")
    return cascade


@app.post("/intent")
async def intent(question: Question, cascade: Annotated[Cascade, Depends(loaded)]) -> Result:
    """Classify one message; the result says how sure the answer is and which tier gave it."""
    try:
        return await cascade.ainvoke(question.text, local_only=question.local_only)
    except RequestError as error:
        raise HTTPException(status_code=422, detail=str(error)) from error
