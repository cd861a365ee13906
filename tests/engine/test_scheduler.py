"""The scheduler never loses, swaps or repeats a token, whichever sequences join, leave or are cancelled."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from decoding import with_weights
from gguf_maker import make_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.engine.context import Context, ContextShape
from cascade.engine.prefix import PrefixCache
from cascade.engine.scheduler import CHUNK, Scheduler
from cascade.engine.sequence import DecodePart, DecodeSequence
from cascade.engine.weights import Weights
from cascade.errors import ModelError

LIMIT = 512
# A row decoded alone may differ from one decoded among others: flash attention uses 16-bit floats, and the
# order of sums depends on the batch. The largest difference in 3,000 sequences was 0.011 nat.
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", seed=3, n_ctx=LIMIT)


class Draft:
    """A greedy text of `count` tokens, with the logits rows that it was given."""

    def __init__(self, scheduler: Scheduler, prompt: list[int], count: int) -> None:
        self.count = count
        self.rows: list[np.ndarray] = []
        self.tokens: list[int] = []
        self.sequence = DecodeSequence(scheduler, np.array(prompt, np.int32), self.choose, new_cells=count)

    def choose(self, row: np.ndarray, _index: int) -> int | None:
        self.rows.append(row.astype(np.float64))
        self.tokens.append(int(row.argmax()))
        return self.tokens[-1] if len(self.tokens) < self.count else None


def log_softmax(row: np.ndarray) -> np.ndarray:
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def assert_rows_of_its_own_tokens(weights: Weights, draft: Draft) -> None:
    """Assert that each row is the one after exactly the tokens before it, evaluated alone."""
    context = weights.context(ContextShape(LIMIT, 1))
    everything = np.concatenate([draft.sequence.prompt, np.array(draft.tokens, np.int32)]).astype(np.int32)
    for index, row in enumerate(draft.rows):
        context.clear()
        length = len(draft.sequence.prompt) + index
        for start in range(0, length, context.n_batch):
            context.feed(everything[start : min(length, start + context.n_batch)], start, output=True)
        alone = context.rows()[0].astype(np.float64)
        assert np.abs(log_softmax(row) - log_softmax(alone)).max() < TOLERANCE


class Event(NamedTuple):
    wait: int  # steps before it joins
    prompt: list[int]
    count: int
    cancel: int  # steps after which it is cancelled; 0: never


def prompts() -> st.SearchStrategy[list[int]]:
    """Return prompts of 1 to 300 tokens, many of which share a prefix."""
    return st.builds(
        lambda shared, rest, seed: (
            np.random.default_rng(7).integers(33, 120, shared).tolist()
            + np.random.default_rng(seed).integers(33, 120, rest).tolist()
        ),
        st.sampled_from([0, 0, 40, 40, 150]),
        st.integers(1, 150),
        st.integers(0, 5),
    )


events = st.lists(
    st.builds(Event, st.integers(0, 6), prompts(), st.integers(1, 8), st.sampled_from([0, 0, 0, 1, 3])),
    min_size=1,
    max_size=9,
)


def play(scheduler: Scheduler, events: list[Event]) -> list[Draft]:
    """Run the events; return the drafts that were not cancelled, all of them done."""
    arrivals = [(sum(e.wait for e in events[: i + 1]), Draft(scheduler, e.prompt, e.count), e)
              for i, e in enumerate(events)]  # fmt: skip
    finished: list[DecodeSequence] = []
    for now in range(10_000):
        for start, draft, event in arrivals:
            if start == now:
                scheduler.add(draft.sequence)
            if event.cancel and start + event.cancel == now and not draft.sequence.done:
                draft.sequence.abandon()
                scheduler.drop(draft.sequence)
        if not scheduler.busy and now > max(start for start, _, _ in arrivals):
            break
        finished += scheduler.step()
    assert not scheduler.busy
    assert len(finished) == len(set(finished))
    drafts = [draft for _, draft, _ in arrivals if draft.sequence.done]
    assert {draft.sequence for draft in drafts} == set(finished)
    for _, draft, event in arrivals:
        assert draft.sequence.done or event.cancel
    return drafts


@pytest.mark.parametrize(
    ("shape", "max_slots"),
    [
        (ContextShape(LIMIT, 1, slots=4), 4),
        (ContextShape(LIMIT, 1, slots=3, flash=True), 3),
        (ContextShape(LIMIT, 1, slots=1, flash=True), 5),
        (ContextShape(1024, 1, slots=4, packed=True, flash=True), 4),
    ],
)
@settings(max_examples=15)
@given(events=events)
def test_every_row_follows_its_own_tokens_while_sequences_join_and_leave(
    path: Path, shape: ContextShape, max_slots: int, events: list[Event]
) -> None:
    def run(weights: Weights) -> None:
        prefixes = None if shape.packed else PrefixCache(max_bytes=600_000)
        scheduler = Scheduler(weights.context(shape), causal=True, prefixes=prefixes, max_slots=max_slots)
        for draft in play(scheduler, events):
            assert draft.sequence.error is None
            assert len(draft.tokens) == draft.count
            assert_rows_of_its_own_tokens(weights, draft)

    with_weights(path, run)


def test_a_long_prompt_delays_a_short_one_by_one_chunk(path: Path) -> None:
    def run(weights: Weights) -> tuple[int, int]:
        scheduler = Scheduler(weights.context(ContextShape(2 * LIMIT, 1, slots=4)), causal=True)
        long, short = Draft(scheduler, list(range(40, 120)) * 10, 1), Draft(scheduler, [50, 51, 52], 2)
        writing = Draft(scheduler, [60], 50)
        scheduler.add(writing.sequence)
        scheduler.step()
        scheduler.add(long.sequence)
        scheduler.step()
        before = len(writing.tokens)
        scheduler.add(short.sequence)
        steps = 0
        while not short.sequence.done:
            scheduler.step()
            steps += 1
        assert not long.sequence.done
        assert len(writing.tokens) == before + steps  # a generating sequence gets a token in every step
        while not long.sequence.done:
            scheduler.step()
        return steps, scheduler.steps

    short_steps, all_steps = with_weights(path, run)
    assert short_steps == 2  # one for each token: its prompt came before the next chunk
    assert all_steps >= 2 + 800 // CHUNK


def test_short_prompts_share_one_decode(path: Path) -> None:
    def run(weights: Weights) -> list[int]:
        steps = []
        for causal in (True, False):
            shape = ContextShape(1024, 1, slots=16, packed=True, flash=True)
            scheduler = Scheduler(weights.context(shape), causal=causal)
            drafts = [Draft(scheduler, [40 + i] * (5 + i), 1) for i in range(10)]
            for draft in drafts:
                scheduler.add(draft.sequence)
            while scheduler.busy:
                scheduler.step()
            steps.append(scheduler.steps)
            assert {draft.sequence.max_batch for draft in drafts} == {10}
            for draft in drafts:
                assert_rows_of_its_own_tokens(weights, draft)
        return steps

    assert with_weights(path, run) == [1, 1]


def test_whole_prompts_in_one_decode_do_not_see_each_other(tmp_path: Path) -> None:
    """In a non-causal model each token sees all others, but only those of its own prompt."""
    path = make_gguf(tmp_path / "m.gguf", causal=False, n_ctx=LIMIT)

    def run(weights: Weights) -> None:
        shape = ContextShape(LIMIT, 1, slots=16, packed=True, flash=True)
        scheduler = Scheduler(weights.context(shape), causal=False)
        random = np.random.default_rng(0)
        drafts = [
            Draft(scheduler, random.integers(33, 120, random.integers(2, 60)).tolist(), 1) for _ in range(40)
        ]
        for draft in drafts:
            scheduler.add(draft.sequence)
        while scheduler.busy:
            scheduler.step()
        assert max(draft.sequence.max_batch for draft in drafts) > 5
        for draft in drafts:
            assert_rows_of_its_own_tokens(weights, draft)

    with_weights(path, run)


def test_a_prefix_is_evaluated_once_and_survives_other_prompts(path: Path) -> None:
    shared = np.random.default_rng(1).integers(33, 120, 200).tolist()

    def run(weights: Weights) -> list[int]:
        prefixes = PrefixCache()
        scheduler = Scheduler(
            weights.context(ContextShape(LIMIT, 1, slots=2)), causal=True, prefixes=prefixes
        )
        reused = []
        for rest in ([50, 51], [60, 61], None, None, [70, 71]):
            prompt = [*shared, *rest] if rest else [80] * 100
            draft = Draft(scheduler, prompt, 4)
            scheduler.add(draft.sequence)
            while scheduler.busy:
                scheduler.step()
            assert_rows_of_its_own_tokens(weights, draft)
            reused.append(draft.sequence.reused)
        assert prefixes.bytes > 0
        return reused

    assert with_weights(path, run) == [0, 200, 0, 99, 200]


def test_prompts_with_a_common_prefix_that_arrive_together_wait_for_the_first(path: Path) -> None:
    shared = np.random.default_rng(2).integers(33, 120, 300).tolist()

    def run(weights: Weights) -> tuple[int, list[int]]:
        scheduler = Scheduler(
            weights.context(ContextShape(LIMIT, 1, slots=4)), causal=True, prefixes=PrefixCache()
        )
        drafts = [Draft(scheduler, [*shared, 40 + i, 50], 2) for i in range(6)]
        for draft in drafts:
            scheduler.add(draft.sequence)
        while scheduler.busy:
            scheduler.step()
        for draft in drafts:
            assert_rows_of_its_own_tokens(weights, draft)
        return scheduler.tokens, [draft.sequence.reused for draft in drafts]

    tokens, reused = with_weights(path, run)
    assert reused == [0, *[300] * 5]
    assert tokens == 302 + 5 * 2 + 6


def test_the_saved_prefixes_stay_under_their_bound(path: Path) -> None:
    def run(weights: Weights) -> None:
        context = weights.context(ContextShape(LIMIT, 1, slots=2))
        one = len(saved_state(context, 50))
        prefixes = PrefixCache(max_bytes=3 * one + one // 2)
        scheduler = Scheduler(context, causal=True, prefixes=prefixes)
        for prefix in range(8):
            for last in (1, 2):
                draft = Draft(scheduler, [*[40 + prefix] * 50, last], 1)
                scheduler.add(draft.sequence)
                while scheduler.busy:
                    scheduler.step()
        assert len(prefixes) == 3
        assert prefixes.bytes <= 3 * one + one // 2

    with_weights(path, run)


def saved_state(context: Context, tokens: int) -> np.ndarray:
    context.feed(np.arange(40, 40 + tokens, dtype=np.int32), 0, output=False)
    state = context.save(0)
    context.clear()
    return state


def test_only_the_sequence_that_llama_cpp_refuses_fails(path: Path) -> None:
    def run(weights: Weights) -> list[Draft]:
        scheduler = Scheduler(weights.context(ContextShape(LIMIT, 1, slots=4)), causal=True)
        drafts = [Draft(scheduler, prompt, 3) for prompt in ([40, 41], [42, 10**6], [43])]
        for draft in drafts:
            scheduler.add(draft.sequence)
        while scheduler.busy:
            scheduler.step()
        for draft in (drafts[0], drafts[2]):
            assert_rows_of_its_own_tokens(weights, draft)
        return drafts

    good, bad, other = with_weights(path, run)
    assert isinstance(bad.sequence.error, ModelError)
    assert "code -1: llama.cpp refused the batch" in str(bad.sequence.error)
    assert good.sequence.error is other.sequence.error is None
    assert len(good.tokens) == len(other.tokens) == 3


def test_a_cancel_ends_a_long_prefill_in_the_middle_of_a_decode(tmp_path: Path) -> None:
    """The decode is long enough to be interrupted; without the abort it would evaluate its whole chunk."""
    path = make_gguf(tmp_path / "m.gguf", layers=24, width=256, n_ctx=2048)

    def run(weights: Weights) -> tuple[int, int]:
        shape = ContextShape(2048, 1, slots=2)
        scheduler = Scheduler(weights.context(shape), causal=True)
        scheduler._capacity = scheduler._capacity._replace(chunk=512)
        doomed, other = Draft(scheduler, [40] * 500, 1), Draft(scheduler, [50, 51], 3)
        for draft in (other, doomed):
            scheduler.add(draft.sequence)

        def cancel() -> None:
            while not scheduler._in_flight:
                time.sleep(0.001)
            doomed.sequence.abandon()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        scheduler.step()
        canceller.join(30)
        evaluated = scheduler.tokens
        scheduler.drop(doomed.sequence)
        while scheduler.busy:
            scheduler.step()
        assert len(other.tokens) == 3
        return evaluated, scheduler.tokens

    assert with_weights(path, run) == (0, 4)


def test_a_cancelled_short_sequence_does_not_end_the_decode_of_others(path: Path) -> None:
    def run(weights: Weights) -> None:
        scheduler = Scheduler(weights.context(ContextShape(LIMIT, 1, slots=2)), causal=True)
        drafts = [Draft(scheduler, [40] * 2, 1), Draft(scheduler, [50] * 90, 1)]
        for draft in drafts:
            scheduler.add(draft.sequence)
        scheduler._place_waiting()
        scheduler._in_flight = [DecodePart(drafts[0].sequence, 2, 1), DecodePart(drafts[1].sequence, 90, 1)]
        flagged = []
        scheduler.context.abort_flag.set = lambda: flagged.append(1)  # type: ignore[method-assign]
        drafts[0].sequence.abandon()
        assert not flagged
        drafts[1].sequence.abandon()
        assert flagged

    with_weights(path, run)
