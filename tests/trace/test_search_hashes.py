"""Requests that look like hashes are found by their text, in stores with and without texts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest
from runs_maker import run

from cascade.records import Request
from cascade.trace import RunFilter, TraceStore


@pytest.mark.parametrize("store_text", [True, False])
def test_any_piece_of_a_request_that_begins_like_a_hash_is_found(tmp_path: Path, store_text: bool) -> None:
    random = Random(7)
    texts = [f"sha256:{random.randbytes(n).hex()} is it broken?" for n in (0, 3, 20, 32)]
    texts += [f"sha256:{random.randbytes(32).hex()}", "SHA256: what is it for?", "something else"]
    with TraceStore(str(tmp_path / "runs.db"), store_text=store_text) as store:
        for number, text in enumerate(texts):
            store.write(run(f"01R{number}", request=Request(text=text), text=None, draft=None))
        for number, text in enumerate(texts):
            kept = text if store_text else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
            for begin in (0, 2, 7):
                piece = kept[begin : begin + random.randint(3, 40)]
                found = {row.run for row in store.search(RunFilter(contains=piece))}
                assert f"01R{number}" in found, (kept, piece)
        assert store.search(RunFilter(contains="sha256:nowhere")) == []
