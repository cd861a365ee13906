"""Indexes change how fast runs are found, never which: SQLite's plan against checking every run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, select

from cascade.records import Request, Result
from cascade.trace import RunFilter, TraceStore, prune
from cascade.trace import _search as search
from cascade.trace._filters import conditions
from cascade.trace._fulltext import has_index
from cascade.trace._tables import runs

WORDS = (
    "card",
    "Carding",
    "lost_card",
    "ÄRGER",
    "ärger",
    "50%",
    'quo"te',
    "x'y",
    "a\\b",
    "AND",
    "NEAR(",
    "日本語の",
)
TIMES = [f"2026-0{month}-01T00:00:00.000+00:00" for month in range(1, 6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceStore]:
    rng = random.Random(7)
    path = tmp_path_factory.mktemp("search") / "runs.db"
    with TraceStore(str(path)) as store:
        futures = []
        for index in range(400):
            texts = [" ".join(rng.choices(WORDS, k=3)) for _ in range(3)]
            given: dict[str, Any] = {
                "graph": rng.choice(("g@1", "g@2", "h", "rare@1" if index == 7 else "g@1")),
                "status": rng.choice(("accepted", "abstained")),
                "rule": rng.choice((None, "confident", "over_cost")),
                "tier": rng.choice((None, "haiku", "opus")),
                "confidence": rng.choice((None, 0.1, 0.5, 0.9)),
                "cost_usd": rng.choice((0.0, 0.01, 0.2)),
                "started": rng.choice(TIMES),
                "text": rng.choice((None, texts[0])),
                "draft": rng.choice((None, texts[1])),
            }
            run = {"run": f"{rng.choice('ABC')}{index:04}", "request": Request(text=texts[2]), **given}
            futures.append(store.submit(Result.model_validate(run)))
        for future in futures:
            future.result(30)
        for row in store.runs(limit=400)[::9]:
            store.grade(row.run, rng.random() < 0.5) if row.text is not None else None
        gone = prune(str(path), RunFilter(graph="g@2", until=TIMES[2]), note="a test")
        assert gone.runs > 20
        yield store


def maybe(*choices: object) -> st.SearchStrategy[Any]:
    return st.sampled_from((None, None, *choices))


FILTERS = st.builds(
    RunFilter,
    graph=maybe("g", "g@2", "h", "rare", "none"),
    status=maybe("accepted", "waiting"),
    rule=maybe("confident"),
    tier=maybe("opus"),
    confidence_min=maybe(0.5, 0.95),
    confidence_max=maybe(0.2),
    cost_min=maybe(0.01),
    cost_max=maybe(0.1),
    since=maybe(TIMES[1]),
    until=maybe(TIMES[3]),
    contains=st.none()
    | st.sampled_from((*WORDS, "ard", "rd_c", "rger", "b0", "A00", "%", "\\", '"', "%' OR", "d l", "\0card"))
    | st.text(max_size=4).filter(bool),
    grade=maybe("right", "wrong", "none"),
)


@pytest.mark.parametrize("max_rare", [0, 50, 10**6])
@given(where=FILTERS, limit=st.sampled_from((1, 7, 1000)), below=st.sampled_from((None, 200)))
def test_the_same_runs_are_found(
    max_rare: int, store: TraceStore, where: RunFilter, limit: int, below: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch, store._connection() as connection:
        assert connection is not None
        assert has_index(connection)
        patch.setattr(search, "_WINDOW", 16)
        patch.setattr(search, "_MAX_RARE", max_rare)  # texts are looked up, or read
        result = search.newest_runs(connection, where, limit=limit, below=below)
        query = select(runs.c.seq).where(*conditions(where)).order_by(runs.c.seq.desc())
        wanted = [seq for seq in connection.execute(query).scalars() if below is None or seq < below]
    assert result == wanted[:limit]


def test_texts_that_are_hashed_are_not_indexed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with TraceStore(str(path), store_text=False) as store:
        store.write(
            Result(run="A", graph="g", status="accepted", text="x y z", request=Request(text="where is it"))
        )
        assert store.search(RunFilter(contains="where")) == []
        with store._connection() as connection:
            assert connection is not None
            assert connection.exec_driver_sql("SELECT count(*) FROM runs_fts_idx").scalar() == 0


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ({"status": "accepted"}, "ix_runs_status"),
        ({"graph": "g@1"}, "ix_runs_digest"),
        ({"status": "accepted", "confidence_max": 0.5}, "ix_runs_filter"),
        ({"contains": "card", "cost_min": 0.01}, "ix_runs_filter"),
    ],
)
def test_sqlite_is_told_which_index_to_use(where: dict[str, Any], index: str, store: TraceStore) -> None:
    statements: list[str] = []
    with store._connection() as connection:
        assert connection is not None

        @event.listens_for(connection, "before_cursor_execute")
        def record(*arguments: Any) -> None:
            statements.append(arguments[2])

        search.newest_runs(connection, RunFilter(**where), limit=5)
        event.remove(connection, "before_cursor_execute", record)
    assert any(f"runs INDEXED BY {index}" in statement for statement in statements)
