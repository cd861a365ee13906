"""A folder to start from: rows, expert, graph, evaluation, service, and a README with this run's figures.

It is made beside the folder and renamed at the end, so that whatever fails leaves nothing half-made.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.config.shipped import copy_shipped_graph, shipped_graphs
from cascade.errors import RequestError
from cascade.files import replace_file
from cascade.lab.evaluation.formatting import percent
from cascade.lab.learning.settings import DELTA, MAX_RISK, MINUTES, task_name
from cascade.lab.learning.split import put_aside
from cascade.lab.reading.row_reading import RowOptions
from cascade.lab.reading.survey import Survey, survey
from cascade.lab.tables.rows import LabelledRow

if TYPE_CHECKING:
    from cascade.lab.learning.result import Learned

TEST_ROWS = 2_000  # are held out at most; more make no promise better that these cannot make
_SERVICE = '''\
"""Serve the graph as an OpenAI-compatible model and show its runs: python service.py [PORT]."""

import sys
from pathlib import Path

import uvicorn

from cascade import Cascade, TraceStore
from cascade.serve import create_server
from cascade.trace import default_url

graph = Cascade.load(Path(__file__).parent / "{graph}")
app = create_server({{graph.name: graph}}, TraceStore(default_url()))
if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
'''
_EVALUATE = """\
#!/bin/sh
# {what}
# Only local models are asked; take --local-only out to ask the others too, which costs money.
cd "$(dirname "$0")" && exec cascade run {graph} --input {rows} --local-only
"""
_USE = """\
## Use it

```
cascade run {graph} {request}
./evaluate.sh{argument}
cascade serve {graph}        # or: python service.py
curl -s localhost:8000/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{"model": "{name}", "messages": [{{"role": "user", "content": {text}}}]}}'
```

`cascade trace explain last` tells why the last request ended as it did. Without a key for the last model
(`OPENAI_API_KEY`), a request of which the local models are not sure ends without an answer, and says so.
"""


def shipped_project(name: str, folder: Path) -> list[Path]:
    """Lay down a project around a shipped graph in `folder`; return its files.

    Raises:
        ConfigError: there is no such graph.
        RequestError: `folder` holds something already, or cannot be written.
    """
    with new_folder(folder) as draft:
        graph = copy_shipped_graph(name, draft / "graphs")[0].relative_to(draft).as_posix()
        shipped = shipped_graphs()[name]
        what = "Asks the graph every row of a file with columns text and label: ./evaluate.sh ROWS.csv"
        head = f"# {name}\n\n{shipped.description}\n\n"
        use = _use(graph, shipped.name, shipped.request, " ROWS.csv")
        _write(draft, graph, _EVALUATE.format(what=what, graph=graph, rows='"$1"'), head + use)
    return _files(folder)


def learned_project(
    data: Path,
    folder: Path,
    *,
    text: str | None = None,
    label: str | None = None,
    size: str | None = None,
    minutes: float = MINUTES,
    max_risk: float = MAX_RISK,
    delta: float = DELTA,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Learned:
    """Learn an expert from the rows in `data` and lay down a project around it in `folder`.

    A third of the rows, at most `TEST_ROWS`, is kept out of learning: the promise is checked on them, and
    `evaluate.sh` asks them again. The arguments are those of `cascade.lab.learn`.

    Raises:
        RequestError: `folder` holds something already or cannot be written, or the rows do not do.
        StoppedError: it was stopped before there was an expert.
    """
    from cascade.lab.learning.learn import learn

    with new_folder(folder) as draft:
        found = survey(data, text, label, RowOptions())
        kept, aside = _split(found, seed)
        name = task_name(data)
        train, test = draft / "data/train.jsonl", draft / "data/test.jsonl"
        _write_rows(train, [found.rows[index] for index in kept])
        _write_rows(test, [found.rows[index] for index in aside])
        for line in found.lines():
            (on_note or _silent)(line)
        made = learn(
            train, out=draft / f"experts/{name}.gguf", graph_out=draft / f"graphs/{name}.yaml",
            text="text", label="label", size=size, minutes=minutes, max_risk=max_risk, delta=delta,
            test=test, seed=seed, on_progress=on_progress, stopped=stopped,
        )  # fmt: skip
        graph = f"graphs/{name}.yaml"
        what = "Asks the graph the rows that the promise was checked on; none of them taught the expert."
        evaluate = _EVALUATE.format(what=what, graph=graph, rows="data/test.jsonl")
        request = min((found.rows[index].text for index in aside), key=len)
        figures = "\n".join(f"- {line}" for line in _figures(made.card, data.name))
        head = f"# {name}\n\nA cascade learned from {data.name}. Measured when it was made:\n\n{figures}\n\n"
        _write(draft, graph, evaluate, head + _use(graph, name, request, ""))
    return made


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft that becomes `folder` if all goes well, and is removed otherwise.

    Raises:
        RequestError: `folder` is no empty or new folder, or cannot be written.
    """
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestError(f"{folder} is there already and not empty; give a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
    except OSError as error:
        raise RequestError(f"{folder}: {error.strerror}; give a folder that can be written") from error
    try:
        yield draft
        draft.chmod(0o777 & ~_umask())
        draft.replace(target)
    except OSError as error:
        raise RequestError(f"{folder}: {error.strerror}; nothing was made") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _split(found: Survey, seed: int) -> tuple[list[int], list[int]]:
    """Return which rows teach and which test; groups stay on one side."""
    groups = np.array(found.groups, dtype=np.intp)
    aside = put_aside([row.label for row in found.rows], groups, seed)[1].tolist()
    if len(aside) > TEST_ROWS:
        within = {found.groups[index] for index in aside[:TEST_ROWS]}
        aside = [index for index in aside if found.groups[index] in within]
    gone = set(aside)
    return [index for index in range(len(found.rows)) if index not in gone], sorted(aside)


def _write(draft: Path, graph: str, evaluate: str, readme: str) -> None:
    replace_file(draft / "evaluate.sh", evaluate.encode())
    (draft / "evaluate.sh").chmod(0o755 & ~_umask())
    replace_file(draft / "service.py", _SERVICE.format(graph=graph).encode())
    replace_file(draft / "README.md", readme.encode())


def _write_rows(path: Path, rows: Sequence[LabelledRow]) -> None:
    lines = (json.dumps({"text": row.text, "label": row.label}, ensure_ascii=False) for row in rows)
    replace_file(path, "".join(f"{line}\n" for line in lines).encode())


def _use(graph: str, name: str, request: str, argument: str) -> str:
    short = " ".join(request.split())[:200]
    text = json.dumps(short).replace("'", "\\u0027")
    return _USE.format(graph=graph, request=shlex.quote(short), argument=argument, name=name, text=text)


def _figures(card: Mapping[str, Any], source: str) -> Iterator[str]:
    """Yield what was measured, for people."""
    data, promise = card["data"], card["promise"]
    yield f"{data['train']} rows of {source} taught the expert, {data['test_rows']} others tested it"
    held_out = card["figures"]["held_out"]
    if held_out is not None:
        low, high = held_out["accuracy_ci"]
        yield f"right on {percent(held_out['accuracy'])} of these ({percent(low)} to {percent(high)})"
        wrong = "" if held_out["risk"] is None else f", and is wrong on {percent(held_out['risk'])} of them"
        yield f"from confidence {card['accept']:g} on it answers {percent(held_out['coverage'])} alone{wrong}"
    made = promise["certificate"]
    if made is None:
        needed = (
            "" if promise["rows_needed"] is None else f" (about {promise['rows_needed']:,} rows would do)"
        )
        yield f"no certificate: {promise['refused']}{needed}"
    else:
        yield (
            f"certified: with probability {1 - promise['delta']:g} at most {100 * promise['max_risk']:g} % "
            f"of what it answers is wrong ({made['errors']} errors of {made['accepted']} answers)"
        )
    yield f"learned in {card['seconds']:.0f} s, {card['bytes'] / 1e6:.1f} MB"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _silent(_line: str) -> None:
    """Say nothing."""
