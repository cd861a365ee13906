"""The viewer as an ASGI application: `uvicorn` runs it, and any ASGI application can mount it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cascade.config.load import LoadedGraph
from cascade.errors import GradeError, TraceError, UnknownRunError
from cascade.serve import api, live
from cascade.serve.answers import Answers, no_answers
from cascade.serve.board import Board
from cascade.serve.dashboard import saving, summarise
from cascade.serve.filters import GRADES, RULES, STATUSES, Query, read_query
from cascade.serve.guard import SiteGuardMiddleware
from cascade.serve.inputs import MAX_ANSWER, Viewer, page, read_body, root, viewer_of
from cascade.serve.pages import HERE
from cascade.serve.run_page import heat_levels, view
from cascade.svg import variables
from cascade.trace import OVERVIEW_WINDOW, TraceStore

_PAGE = 50  # runs on a page of the list
_MOST_FIELDS = 16  # of a form
_FILES = {"style.css": "text/css", "icon.svg": "image/svg+xml", "live.js": "text/javascript"}

router = APIRouter(default_response_class=HTMLResponse)


def create_app(
    store: TraceStore,
    graphs: Sequence[LoadedGraph] = (),
    *,
    hosts: Collection[str] = (),
    board: Board | None = None,
    answers: Answers | None = None,
) -> FastAPI:
    """Return the viewer.

    Args:
        store: where the runs are. The caller closes it.
        graphs: known graphs; their runs are drawn in them and shown on their calibration curves.
        hosts: host names to answer to besides those of the loopback interface.
        board: the active runs of this process, if it makes any.
        answers: takes people's answers to waiting runs; None takes none.
    """
    app = FastAPI(title="cascade", docs_url=None, redoc_url=None, openapi_url=None)
    known = {loaded.version: loaded for loaded in graphs}
    app.state.viewer = Viewer(store, known, board or Board(), answers or no_answers())
    app.include_router(api.router)
    app.include_router(live.router)
    app.include_router(router)
    app.add_middleware(SiteGuardMiddleware, hosts=hosts)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(TraceError, _trace_problem)
    return app


@router.get("/")
def list_page(request: Request) -> Response:
    """Show the runs, newest first."""
    store = viewer_of(request).store
    query = read_query(request.query_params)
    before = request.query_params.get("before") or None
    matches = [] if query.problems else store.search(query.where, limit=_PAGE + 1, before=before)
    older = urlencode(query.given | {"before": matches[_PAGE - 1].run}) if len(matches) > _PAGE else None
    return page(
        request,
        "list.html",
        400 if query.problems else 200,
        **_choices(query, store),
        rows=matches[:_PAGE],
        older=older,
        newest=urlencode(query.given) if before else None,
        any_runs=bool(matches or store.runs(limit=1)),
        newest_run=None if before else _newest(store),
    )


@router.get("/dashboard")
def dashboard_page(request: Request) -> Response:
    """Show the figures of the newest runs."""
    store = viewer_of(request).store
    query = read_query(request.query_params)
    summary = None if query.problems else summarise(store.overview(query.where))
    return page(
        request,
        "dashboard.html",
        400 if query.problems else 200,
        **_choices(query, store),
        summary=summary,
        saving=saving(summary) if summary else None,
        window=OVERVIEW_WINDOW,
        any_runs=bool(summary or store.runs(limit=1)),
    )


@router.get("/runs/{run}")
def run_page(request: Request, run: str) -> Response:
    """Show one run in full."""
    return _run_page(request, run)


@router.post("/runs/{run}/grade")
async def grade_form(request: Request, run: str) -> Response:
    """Store the grade that the form of a run's page sends."""
    given = _form(await read_body(request))
    if given.get("grade") not in ("right", "wrong"):
        raise HTTPException(422, f"grade is {given.get('grade')!r}; expected right or wrong")
    return await run_in_threadpool(_grade, request, run, given)


def _grade(request: Request, run: str, given: dict[str, str]) -> Response:
    store = viewer_of(request).store
    correct = given["grade"] == "right"
    try:
        grade = store.grade(run, correct, by=given.get("by"), note=given.get("note"))
    except GradeError as error:
        return _run_page(request, run, 422, problem=str(error))
    return RedirectResponse(f"{root(request)}/runs/{grade.run}#grade", 303)


@router.post("/runs/{run}/answer")
async def answer_form(request: Request, run: str) -> Response:
    """Finish a waiting run with the answer that the form of its page sends."""
    given = _form(await read_body(request, MAX_ANSWER))
    viewer = viewer_of(request)
    kept = await run_in_threadpool(viewer.store.get, run)
    answer = given.get("answer", "").replace("\r\n", "\n")  # forms send lines so
    try:
        done = await viewer.answers.give(kept, answer)
    except HTTPException as error:
        return await run_in_threadpool(
            _run_page, request, run, error.status_code, problem=error.detail, given=answer
        )
    return RedirectResponse(f"{root(request)}/runs/{done.run}", 303)


def _form(body: bytes) -> dict[str, str]:
    """Return the fields that a form sent, the first of each name."""
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(400, f"the form has more than {_MOST_FIELDS} fields") from error
    return {name: values[0] for name, values in fields.items()}


def _run_page(
    request: Request, run: str, code: int = 200, *, problem: str | None = None, given: str = ""
) -> Response:
    viewer = viewer_of(request)
    result = viewer.store.get(run)
    return page(
        request,
        "run.html",
        code,
        run=result,
        view=view(result, viewer.graphs),
        grades=viewer.store.grades(result.run),
        levels=heat_levels(),
        problem=problem,
        answers_here=viewer.answers.takes(result),
        given=given,
    )


@router.get("/{name}")
def static_file(name: str) -> Response:
    """Serve the style sheet, with the colours before it, the icon and the script."""
    if name not in _FILES:
        raise HTTPException(404, f"/{name} is no page of the viewer")
    content = (HERE / "static" / name).read_text()
    if name == "style.css":
        content = f"{variables(printed=True)}\n{content}"
    return Response(content, media_type=_FILES[name])


def _choices(query: Query, store: TraceStore) -> dict[str, object]:
    """Return the choices of the filter form, and what is chosen."""
    options = {
        "graph": store.known("graph"),
        "status": STATUSES,
        "tier": store.known("tier"),
        "rule": RULES,
        "grade": GRADES,
    }
    return {"given": query.given, "problems": query.problems, "options": options}


def _newest(store: TraceStore) -> str:
    """Return the id of the newest run, or an empty string."""
    return next((row.run for row in store.runs(limit=1)), "")


def _http_problem(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    if code == 404 and detail == "Not Found":
        detail = f"{request.url.path} is no page of the viewer"
    return _problem(request, code, detail)


def _trace_problem(request: Request, error: Exception) -> Response:
    code = 404 if isinstance(error, UnknownRunError) else 422 if isinstance(error, GradeError) else 503
    return _problem(request, code, str(error))


def _problem(request: Request, code: int, detail: str) -> Response:
    if request.url.path.removeprefix(root(request)).startswith("/v1/"):
        return api.problem(code, detail)
    return page(request, "error.html", code, code=code, detail=detail)
