"""Learned heads in the engine: one encoder for all files, one decode for what waits, one vector a text."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import drain, with_weights
from expert_maker import MOOD, TICKETS, centroid_head, make_expert
from gguf_maker import make_gguf

from cascade.config.references import bundled_path
from cascade.engine import ModelCache, decode_worker
from cascade.engine.embed_queue import EmbeddingQueue
from cascade.engine.experts import encoder_tokens, read_heads, read_learned_task
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.formats.expert_file import write_expert
from cascade.models import build_model
from cascade.models.base import Prompt, Reply
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    return make_expert(folder / "both.gguf", {"tickets": TICKETS, "mood": MOOD})


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_expert(tmp_path_factory.mktemp("experts") / "mood.gguf", {"mood": MOOD}, max_tokens=12)


def model(path: Path, **settings: Any) -> LlamaCpp:
    config = LlamaCppSettings.model_validate({"kind": "llamacpp", "path": str(path)} | settings)
    built = build_model("nano", config, path.parent)
    assert isinstance(built, LlamaCpp)
    return built


def state() -> tuple[int, int]:
    """The number of loaded files, and of decodes of all their encoders."""

    def steps(models: ModelCache, _queued: float) -> Generator[None, None, tuple[int, int]]:
        yield
        loaded = list(models._loaded.values())
        return len(loaded), sum(queue.decodes for w in loaded for queue in w._queues.values())

    return decode_worker().submit("state", steps).result(timeout=60)


async def test_a_head_answers_with_its_distribution_and_its_own_confidence(expert: Path) -> None:
    tickets = model(expert, task="tickets")
    reply = await tickets.ask(Prompt("somebody stole my card"))
    await tickets.aclose()
    assert reply.text == "card"
    assert reply.labels is not None
    assert next(iter(reply.labels)) == "card"
    assert sum(reply.labels.values()) == pytest.approx(1.0)
    assert set(reply.meta["expert"]) == {"confidence", "known"}
    assert 0.0 < reply.meta["expert"]["confidence"] < 1.0
    assert reply.meta["finish_reason"] == "label"
    assert reply.tokens_in == 6
    assert reply.tokens_out == 0
    # The same figures as the head itself gives.
    weights = Weights(expert)
    vector = drain(
        weights.embedding_queue(512, 1).embed([weights.tokenize("somebody stole my card", 99, begin=True)])
    )
    answer = read_heads(expert)["tickets"].answer(vector[0], "somebody stole my card")
    weights.close()
    assert reply.meta["expert"]["confidence"] == pytest.approx(answer.confidence, abs=1e-4)
    assert reply.labels["card"] == pytest.approx(float(answer.probabilities[0]), abs=1e-4)


async def test_files_with_one_encoder_share_its_weights_and_a_text_is_embedded_once(
    expert: Path, single: Path
) -> None:
    models = [model(expert, task="tickets"), model(expert, task="mood"), model(single)]
    before = state()
    replies = await asyncio.gather(*(each.ask(Prompt("I love my new card")) for each in models))
    loaded, decodes = state()
    assert loaded <= before[0] + 1  # agreement may have left the encoder loaded
    assert decodes == before[1] + 1  # all three calls were in flight
    assert [reply.text for reply in replies] == ["card", "good", "good"]
    assert replies[1].labels == replies[2].labels
    again = await models[2].ask(Prompt("I love my new card"))
    assert state()[1] == decodes
    assert again.meta["batch"] == 0
    assert again.labels == replies[2].labels
    for each in models:
        await each.aclose()
    assert state()[0] == before[0]


async def test_what_waits_is_embedded_together_and_the_labels_are_those_of_each_alone(expert: Path) -> None:
    tickets = model(expert, task="tickets")
    await tickets.ask(Prompt("load it"))
    start = state()[1]
    texts = [f"{text} {number}" for number in range(4) for texts in TICKETS.values() for text in texts]
    replies = await asyncio.gather(*(tickets.ask(Prompt(text)) for text in texts))
    assert state()[1] - start <= 4
    assert max(reply.meta["batch"] for reply in replies) > 8
    alone = model(expert, task="tickets", reproducible=True)
    single = [await alone.ask(Prompt(text)) for text in texts]
    assert {reply.meta["batch"] for reply in single} == {1}
    for one, other in zip(replies, single, strict=True):
        assert one.text == other.text
        assert other.labels is not None
        assert one.labels == pytest.approx(other.labels, abs=0.01)
    await tickets.aclose()
    await alone.aclose()


async def test_a_long_text_is_cut_and_says_so(single: Path) -> None:
    mood = model(single)
    short = await mood.ask(Prompt("I love it"))
    assert "cut" not in short.meta["expert"]
    cut = await mood.ask(Prompt("great work " * 10))
    assert (cut.tokens_in, cut.meta["expert"]["cut"]) == (12, 10)
    long = await mood.ask(Prompt("great work " * 4545))  # 50,000 characters
    assert long.tokens_in == 12
    assert long.meta["expert"]["cut"] == pytest.approx(2 * 4545 - 10, rel=0.05)
    assert long.text == "good"
    await mood.aclose()


@pytest.mark.parametrize(
    "text", ["\u200b", "🙂 \U000f0000", "[UNK] x", "x" * 5000, "[CLS] [MASK] [SEP]", "\x01\x02"]
)
async def test_odd_texts_get_an_answer(single: Path, text: str) -> None:
    mood = model(single)
    reply = await mood.ask(Prompt(text))
    assert reply.labels is not None
    assert sum(reply.labels.values()) == pytest.approx(1.0)
    await mood.aclose()


def test_a_cut_text_keeps_the_tokens_around_it(single: Path) -> None:
    def cut(weights: Weights) -> list[Any]:
        whole, none = encoder_tokens(weights, "  the card is lost ", 64)
        part, dropped = encoder_tokens(weights, "the card is lost", 4)
        return [whole.tolist(), none, part.tolist(), dropped]

    whole, none, part, dropped = with_weights(single, cut)
    assert (none, dropped) == (0, 2)
    assert part == [*whole[:3], whole[-1]]


async def test_a_process_of_its_own_answers_the_same(single: Path) -> None:
    here, there = model(single), model(single, isolate="process")
    ours, theirs = await here.ask(Prompt("thank you")), await there.ask(Prompt("thank you"))
    assert theirs.labels == ours.labels
    assert theirs.meta["expert"] == ours.meta["expert"]
    assert theirs.meta["isolated"] is True
    await here.aclose()
    await there.aclose()


async def test_an_encoder_that_was_unloaded_is_loaded_again(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_ENGINE_MEMORY", "1")  # every other file is freed
    mood, other = model(single), model(make_gguf(tmp_path / "other.gguf"), max_tokens=2)
    first = await mood.ask(Prompt("great"))
    await other.ask(Prompt("hello"))
    assert (await mood.ask(Prompt("great"))).labels == first.labels
    await mood.aclose()
    await other.aclose()


async def test_a_new_file_under_the_same_name_is_the_one_that_answers(tmp_path: Path) -> None:
    path = make_expert(tmp_path / "mood.gguf", {"mood": MOOD})
    mood = model(path)
    assert (await mood.ask(Prompt("I love it"))).text == "good"
    swapped = {"bad": MOOD["good"], "good": MOOD["bad"]}
    make_expert(path, {"mood": swapped})
    fresh = model(path)
    assert (await fresh.ask(Prompt("I love it"))).text == "bad"
    await mood.aclose()
    await fresh.aclose()


def broken(expert: Path, out: Path, **arrays: np.ndarray | None) -> Path:
    head = read_heads(expert)["mood"]
    changed = {name: array for name, array in (head.arrays | arrays).items() if array is not None}
    from types import SimpleNamespace

    parts = SimpleNamespace(labels=head.labels, settings=head.settings, arrays=changed)
    write_expert(bundled_path("encoder"), {"mood": parts}, {}, out, 64)
    return out


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weights": np.full((2, 384), np.nan, np.float32)}, "not finite"),
        ({"weights": np.zeros((2, 7), np.float32)}, "vector"),
        ({"bias": np.zeros(3, np.float32)}, "'bias' has 3 labels, expected 2"),
        ({"bias": np.zeros(2, np.int8)}, "expected float32"),
        ({"bias": None}, "has no array 'bias'"),
    ],
)
async def test_a_broken_head_fails_the_call_and_says_what_to_do(
    single: Path, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    mood = model(broken(single, tmp_path / "broken.gguf", **arrays))
    with pytest.raises(ModelError, match=message) as error:
        await mood.ask(Prompt("hello"))
    assert "again" in str(error.value)
    assert "'nano'" in str(error.value)


def test_a_task_is_picked_or_named(expert: Path, single: Path, tmp_path: Path) -> None:
    learned = read_learned_task(single, None)
    assert learned is not None
    assert (learned.name, learned.max_tokens) == ("mood", 12)
    assert read_learned_task(make_gguf(tmp_path / "plain.gguf"), None) is None
    for task in (None, "moot"):
        with pytest.raises(ModelError, match="this expert knows: mood, tickets"):
            read_learned_task(expert, task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "several tasks; give 'task', one of: mood, tickets"),
        ({"task": "moot"}, "unknown task 'moot'"),
        ({"task": "mood", "labels": ["a", "b"]}, "'labels' cannot stand here"),
        ({"task": "mood", "prompt": "Say {text}"}, "'prompt' cannot stand here"),
        ({"task": "mood", "system": "Be kind"}, "'system' cannot stand here"),
        ({"task": "mood", "examples": {"a": ["x"], "b": ["y"]}}, "'examples' cannot stand here"),
        ({"task": "mood", "prefix_dir": "kept"}, "'prefix_dir' has no effect"),
    ],
)
def test_settings_beside_a_head_are_checked(expert: Path, settings: dict[str, Any], message: str) -> None:
    config = LlamaCppSettings.model_validate({"kind": "llamacpp", "path": expert.name} | settings)
    _, problems = config.inspect(expert.parent)
    assert any(message in problem.text for problem in problems), problems


def test_good_settings_have_no_problems_and_the_fingerprint_tells_heads_apart(expert: Path) -> None:
    found = set()
    for task in ("mood", "tickets"):
        config = LlamaCppSettings.model_validate({"kind": "llamacpp", "path": expert.name, "task": task})
        facts, problems = config.inspect(expert.parent)
        assert not problems
        assert facts.labels == tuple({"mood": MOOD, "tickets": TICKETS}[task])
        found.add(config.fingerprint(expert.parent, facts))
    assert len(found) == 2


async def test_an_encoder_without_a_head_is_told_what_it_needs() -> None:
    config = LlamaCppSettings.model_validate({"kind": "llamacpp", "path": "bundled:encoder"})
    _, problems = config.inspect(Path())
    assert "is an encoder" in problems[0].text
    assert "'examples'" in problems[0].text
    with pytest.raises(ModelError, match=r"it is an encoder.*cascade learn"):
        await LlamaCpp("nano", config, Path()).ask(Prompt("hello"))
    with_examples = config.model_copy(update={"examples": TICKETS})
    assert with_examples.inspect(Path())[1] == []
    vectors = await LlamaCpp("nano", config, Path()).embed(["hello", "goodbye"])
    assert vectors.shape == (2, 384)


def test_a_text_that_cannot_be_embedded_fails_alone(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "nan.gguf", causal=False, pooling=1, weights={"output_norm.weight": 0.0})

    def ask(weights: Weights) -> list[str]:
        queue = EmbeddingQueue(weights.embedder(32, 1))
        tickets = [queue.request(weights.tokenize(text, 32, begin=True)) for text in ("hello", "card")]
        assert queue.step() == tickets
        return [str(ticket.error) for ticket in tickets]

    assert all("length 0.0" in text for text in with_weights(path, ask))


def test_an_abandoned_text_is_left_out_and_failing_ends_all(single: Path) -> None:
    def ask(weights: Weights) -> tuple[int, list[bool]]:
        queue = EmbeddingQueue(weights.embedder(32, 1))
        gone, kept = (queue.request(weights.tokenize(text, 32, begin=True)) for text in ("a", "b"))
        gone.abandon()
        assert queue.step() == [kept]
        assert not queue.busy
        waiting = queue.request(weights.tokenize("c", 32, begin=True))
        queue.fail(ModelError("over"))
        return kept.batch, [waiting.done, gone.done]

    assert with_weights(single, ask) == (1, [True, False])


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    small = make_gguf(tmp_path / "small.gguf", causal=False, pooling=1, layers=1, width=32)
    head = centroid_head(bundled_path("encoder"), MOOD)
    write_expert(small, {"mood": head}, {}, tmp_path / "wrong.gguf", 32)
    with pytest.raises(ModelError, match="takes vectors of 384 numbers and its encoder gives 32"):
        asyncio.run(model(tmp_path / "wrong.gguf").ask(Prompt("hello")))


@pytest.mark.parametrize("text", ["\ud800", "", " \n\t", "a\0b"])
async def test_what_is_no_text_fails_the_call_and_says_why(single: Path, text: str) -> None:
    with pytest.raises(ModelError, match=r"not valid Unicode|text is empty|NUL"):
        await model(single).ask(Prompt(text))


def test_labels_that_begin_alike_are_told_apart(expert: Path) -> None:
    async def ask() -> list[Reply]:
        tickets = model(expert, task="tickets")
        return [await tickets.ask(Prompt(text)) for text in ("the card was stolen", "where is my parcel")]

    assert [reply.text for reply in asyncio.run(ask())] == ["card", "card lost"]
