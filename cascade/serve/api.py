"""The runs as JSON: list them, get one in full or explained, grade one, answer one that waits."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cascade.explain import explain
from cascade.records import Record
from cascade.serve.filters import NAMES, read_query
from cascade.serve.inputs import MAX_ANSWER, read_body, viewer_of
from cascade.serve.openai.checks import read_answer
from cascade.serve.openai.reading import UnreadableError

_DEFAULT_LIMIT, _MAX_LIMIT = 50, 500  # runs in one answer

router = APIRouter(prefix="/v1")


class GradeBody(BaseModel):
    """The body of a grade."""

    model_config = ConfigDict(extra="forbid", strict=True)

    correct: bool
    by: str | None = None
    note: str | None = None


@router.get("/runs", response_model=None)
def list_runs(request: Request) -> Response:
    """Return summaries of runs, newest first, and the cursor of the next page (`before`)."""
    params = request.query_params
    query = read_query(params)
    problems = list(query.problems)
    known = (*NAMES, "limit", "before")
    problems += [f"unknown {name!r}; known: {', '.join(known)}" for name in params if name not in known]
    try:
        limit = int(params.get("limit", _DEFAULT_LIMIT))
    except ValueError:
        limit = 0
    if not 1 <= limit <= _MAX_LIMIT:
        problems.append(f"limit is {params.get('limit')!r}; expected 1 to {_MAX_LIMIT}")
    if problems:
        return problem(422, "; ".join(problems))
    matches = viewer_of(request).store.search(query.where, limit=limit + 1, before=params.get("before"))
    rows = [_plain(row) for row in matches[:limit]]
    return _json({"runs": rows, "before": rows[-1]["run"] if len(matches) > limit else None})


@router.get("/runs/{run}", response_model=None)
def one_run(request: Request, run: str) -> Response:
    """Return a run in full with its grades, newest last; infinite numbers are null."""
    store = viewer_of(request).store
    result = store.get(run)
    return _json({**_plain(result), "grades": [_plain(grade) for grade in store.grades(result.run)]})


@router.get("/runs/{run}/explanation", response_model=None)
def explain_run(request: Request, run: str) -> Response:
    """Return why a run ended as it did, as records; the sentences of its page are made from them."""
    viewer = viewer_of(request)
    result = viewer.store.get(run)
    loaded = viewer.graphs.get(result.graph)
    return _json(_plain(explain(result, loaded.graph if loaded else None)))


@router.post("/runs/{run}/grade", response_model=None)
async def grade_run(request: Request, run: str) -> Response:
    """Store a grade: `{"correct": true, "by": "…", "note": "…"}`, the last two optional."""
    _check_type(request)
    try:
        body = GradeBody.model_validate_json(await read_body(request))
    except ValidationError as error:
        errors = [f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors()]
        raise HTTPException(422, f'{"; ".join(errors)}; expected {{"correct": true}} or false') from None
    store = viewer_of(request).store
    grade = await run_in_threadpool(store.grade, run, body.correct, by=body.by, note=body.note)
    return _json(_plain(grade), 201)


@router.post("/runs/{run}/answer", response_model=None)
async def answer_run(request: Request, run: str) -> Response:
    """Finish a run that waits for a person: `{"answer": "…"}`; return it in full as it ended."""
    _check_type(request)
    try:
        answer = await read_answer(await read_body(request, MAX_ANSWER))
    except UnreadableError as error:
        raise HTTPException(400, f'{error}; expected {{"answer": "…"}}') from None
    viewer = viewer_of(request)
    kept = await run_in_threadpool(viewer.store.get, run)
    return _json(_plain(await viewer.answers.give(kept, answer)))


def _check_type(request: Request) -> None:
    # A form on another site can post, but not with this type.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body must be JSON; set Content-Type: application/json")


def problem(code: int, detail: str) -> Response:
    """Return an error."""
    return _json({"error": detail}, code)


def _plain(record: Record) -> dict[str, Any]:
    """Return a record as plain JSON values; infinity, which JSON lacks, becomes null."""
    plain: dict[str, Any] = json.loads(record.model_dump_json())
    return plain


def _json(value: dict[str, Any], code: int = 200) -> Response:
    return JSONResponse(value, code)
