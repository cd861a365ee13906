"""The server's OpenAPI description, walked by schemathesis: no input makes a server error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.serve.server import create_server
from cascade.trace import TraceStore

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


@pytest.mark.slow
def test_no_request_makes_a_server_error(tmp_path: Path) -> None:
    graph = write(tmp_path, {"small": scripted("yes", confidence=0.99)}, [checked("only", "small")])
    database = str(tmp_path / "traces.db")
    with Cascade.load(graph, trace_db=database) as cascade, TraceStore(database, create=False) as store:
        server = create_server({"test": cascade}, store, hosts=("testserver", "localhost"))
        schema = schemathesis.openapi.from_asgi("/openapi.json", server)
        walked = [_walk(found.ok()) for found in schema.get_all_operations()]
    assert sorted(walked) == [
        "GET /healthz", "GET /metrics", "GET /v1/models", "GET /v1/models/{name}",
        "POST /v1/chat/completions", "POST /v1/responses",
    ]  # fmt: skip


def _walk(operation: Any) -> str:
    @given(case=operation.as_strategy())
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()
    return f"{operation.method.upper()} {operation.path}"
