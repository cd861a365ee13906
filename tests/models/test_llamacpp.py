"""A GGUF model through the model contract: labels, text, and every way a call can fail."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from decoding import drain, with_weights
from gguf_maker import CHATML, make_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.confidence.labels import signals
from cascade.engine import EngineAnswer, EngineRequest, RunningStats, Session, Weights, decode_worker
from cascade.errors import ConfigError, ModelError
from cascade.models import build_model
from cascade.models.base import Prompt, Reply
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp
from cascade.records import Message, Request

TASKS = {"colours": ["red", "green", "blue"], "sizes": ["small", "large"]}


def model(path: Path, **settings: Any) -> LlamaCpp:
    config = LlamaCppSettings.model_validate({"kind": "llamacpp", "path": path.name} | settings)
    built = build_model("nano", config, path.parent)
    assert isinstance(built, LlamaCpp)
    return built


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "expert.gguf", tasks=TASKS, max_tokens=16)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says the same two words until it is stopped."""
    return make_gguf(tmp_path_factory.mktemp("gguf") / "endless.gguf", says="on and", ends=False, n_ctx=8192)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that never stop by themselves within a few tokens."""
    return make_gguf(
        tmp_path_factory.mktemp("gguf") / "writer.gguf", chat_template=CHATML, n_ctx=2048, seed=1
    )


async def test_an_expert_answers_with_the_distribution_of_its_task(expert: Path) -> None:
    nano = model(expert, task="colours")
    reply = await nano.ask(Prompt("  Hello CARD "))
    assert reply.labels is not None
    assert set(reply.labels) == {"red", "green", "blue"}
    assert sum(reply.labels.values()) == pytest.approx(1.0, abs=1e-12)
    assert list(reply.labels.values()) == sorted(reply.labels.values(), reverse=True)
    assert reply.text == next(iter(reply.labels))
    assert (reply.tokens_in, reply.tokens_out, reply.tokens) == (3, 1, ())
    queued = reply.meta.pop("queued")
    assert 0 <= queued < 30
    assert reply.meta == {
        "n_threads": 1, "decode": "labels", "mode": "fast", "noise": 0.07, "batch": 1,
        "finish_reason": "label", "truncated": False,
    }  # fmt: skip
    assert (await nano.ask(Prompt("hello card"))).labels == reply.labels


async def test_an_encoder_like_expert_answers_too(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", tasks=TASKS, causal=False)
    causal = make_gguf(tmp_path / "c.gguf", tasks=TASKS, causal=True)
    replies = [await model(p, task="sizes").ask(Prompt("hello card")) for p in (path, causal)]
    assert replies[0].labels != replies[1].labels  # the same weights, but every token sees every other


async def test_a_label_list_is_scored_after_the_rendered_prompt(writer: Path) -> None:
    nano = model(
        writer, labels=["card lost", "card", "car"], prompt="One of {labels}.\n{text}", system="Choose."
    )
    spoken: list[str] = []
    reply = await nano.ask(Prompt("hello {labels}"), spoken.append)
    assert reply.labels is not None
    assert sum(reply.labels.values()) == pytest.approx(1.0, abs=1e-12)
    assert spoken == [reply.text]


async def test_free_text_streams_whole_characters_and_ends_by_itself(tmp_path: Path) -> None:
    data = "né✓ 日本".encode()
    pieces = [data[i : i + 2] for i in range(0, len(data), 2)]
    nano = model(make_gguf(tmp_path / "m.gguf", says=pieces, chat_template=CHATML))
    spoken: list[str] = []
    reply = await nano.ask(Prompt("hi"), spoken.append)
    assert "".join(spoken) == reply.text == "né✓ 日本"
    assert [token.text for token in reply.tokens if token.text] == spoken
    assert (reply.tokens_out, reply.meta["finish_reason"], reply.meta["truncated"]) == (
        len(pieces),
        "stop",
        False,
    )


async def test_max_tokens_and_the_context_cut_an_answer_and_say_so(writer: Path) -> None:
    short = await model(writer, max_tokens=5).ask(Prompt("hi"))
    assert (short.tokens_out, short.meta["finish_reason"], short.meta["truncated"]) == (5, "length", True)
    full = await model(writer, n_ctx=40, seed=5, temperature=1.5).ask(Prompt("hi"))
    assert full.tokens_in + full.tokens_out <= 41


async def test_samples_differ_and_repeat(writer: Path) -> None:
    nano = model(writer, max_tokens=8, temperature=1.0, seed=3)
    first, other, again = [(await nano.ask(Prompt("hi", sample))).tokens for sample in (0, 1, 0)]
    assert first == again != other


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("reproducible", [True, False])
async def test_concurrent_calls_give_the_same_distributions_as_sequential_ones(
    tmp_path: Path, causal: bool, reproducible: bool
) -> None:
    path = make_gguf(tmp_path / "m.gguf", tasks=TASKS, max_tokens=16, causal=causal)
    models = [model(path, task=task, reproducible=reproducible) for task in TASKS]
    texts = [f"hello card {i} {'os ' * (i % 5)}" for i in range(16)]
    alone = [(await nano.ask(Prompt(text))).labels for nano in models for text in texts]
    together = await asyncio.gather(*(nano.ask(Prompt(text)) for nano in models for text in texts))
    for one, other in zip(together, alone, strict=True):
        assert one.labels is not None
        assert other is not None
        assert {name: one.labels[name] for name in other} == pytest.approx(
            other, abs=0.0 if reproducible else 1e-3
        )
    assert len({reply.text for reply in together}) > 1
    assert (max(reply.meta["batch"] for reply in together) > 8) != reproducible


def test_two_event_loops_in_sequence_share_the_one_decode_thread(expert: Path) -> None:
    nano = model(expert, task="colours")
    first, second = (asyncio.run(nano.ask(Prompt("hello"))).labels for _ in range(2))
    assert first == second
    assert [thread.name for thread in threading.enumerate()].count("cascade-decode") == 1


def test_event_loops_in_several_threads_are_answered(expert: Path) -> None:
    nano = model(expert, task="colours")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(nano.ask(Prompt("hello"))).labels))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert all(labels == pytest.approx(found[0], abs=1e-3) for labels in found)  # company changes digits


async def loaded() -> set[Path]:
    """Return the files that are loaded now, asked on the decode thread."""

    def look(library: Any, _queued: float) -> Any:
        yield
        return set(library._loaded)

    return await asyncio.wrap_future(decode_worker().submit("look", look))


async def test_models_of_one_file_share_its_weights_until_the_last_is_closed(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", tasks=TASKS)
    first, second = model(path, task="colours"), model(path, task="sizes")
    await first.aclose()  # nothing is loaded yet
    for nano in (first, second):
        await nano.ask(Prompt("hi"))
    await first.aclose()
    await first.aclose()
    assert path in await loaded()
    await second.aclose()
    assert path not in await loaded()
    assert (await first.ask(Prompt("hi"))).labels is not None  # a later call loads it again
    await first.aclose()


async def test_a_bound_of_memory_unloads_what_was_used_least_recently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [make_gguf(tmp_path / f"{name}.gguf", tasks=TASKS, width=128) for name in "abc"]
    models = [model(path, task="colours") for path in paths]
    first = (await models[0].ask(Prompt("hi"))).labels
    monkeypatch.setenv("CASCADE_ENGINE_MEMORY", "4")  # each has 2 MB
    await models[1].ask(Prompt("hi"))
    await models[2].ask(Prompt("hi"))
    assert paths[0] not in await loaded()
    assert paths[2] in await loaded()
    assert (await models[0].ask(Prompt("hi"))).labels == first  # loaded again
    assert paths[0] in await loaded()
    monkeypatch.setenv("CASCADE_ENGINE_MEMORY", "lots")
    with pytest.raises(ModelError, match="CASCADE_ENGINE_MEMORY is 'lots'; expected a number of MiB"):
        await models[0].ask(Prompt("hi"))
    monkeypatch.delenv("CASCADE_ENGINE_MEMORY")
    for nano in models:
        await nano.aclose()
    assert not await loaded() & set(paths)


async def test_a_callback_ends_a_draft_early(writer: Path) -> None:
    seen: list[tuple[int, float]] = []

    def unsure(running: RunningStats) -> bool:
        seen.append((running.count, running.mean()))
        return running.count >= 3 and running.quantile(0.5) < 0.0

    full = await model(writer, max_tokens=20).ask(Prompt("hi"))
    started = time.monotonic()
    reply = await model(writer, max_tokens=20).ask(Prompt("hi", stop_early=unsure))
    took = time.monotonic() - started
    assert [count for count, _ in seen] == [1, 2, 3]
    assert reply.tokens == full.tokens[:3]
    assert seen[-1][1] == pytest.approx(sum(token.logprob for token in reply.tokens) / 3)
    assert (reply.meta["finish_reason"], reply.meta["truncated"]) == ("early_exit", False)
    assert (reply.tokens_out, reply.meta["spared_tokens_at_most"]) == (3, 17)
    assert 0 < reply.meta["spared_seconds_at_most"] < 17 * took  # two of the 17 steps took less than the call
    once = await model(writer, max_tokens=20).ask(Prompt("hi", stop_early=lambda _: True))
    assert once.meta["spared_tokens_at_most"] == 19
    assert "spared_seconds_at_most" not in once.meta  # one token has no pace


async def test_a_callback_that_raises_fails_its_own_call_only(writer: Path) -> None:
    nano = model(writer, max_tokens=20)
    replies = await asyncio.gather(
        nano.ask(Prompt("hi")),
        nano.ask(Prompt("hi", stop_early=lambda _: 1 / 0 > 0)),
        return_exceptions=True,
    )
    assert isinstance(replies[0], Reply)
    assert isinstance(replies[1], ModelError)
    assert "stop_early raised ZeroDivisionError" in str(replies[1])


async def test_the_reply_tells_the_statistics_of_its_tokens(writer: Path) -> None:
    reply = await model(writer, max_tokens=20).ask(Prompt("hi"))
    logprobs = sorted(token.logprob for token in reply.tokens)
    found = reply.meta["statistics"]["logprob"]
    assert (found["min"], found["max"]) == (logprobs[0], logprobs[-1])
    assert found["p50"] == logprobs[9]
    assert found["mean"] == pytest.approx(sum(logprobs) / 20)
    assert set(reply.meta["statistics"]) == {"logprob", "margin", "entropy"}


async def test_prompt_tokens_and_the_most_probable_tokens_are_measured_on_demand(writer: Path) -> None:
    text = "hello card " * 30  # long enough to be taken over from the first call, were it not measured
    nano = model(writer, max_tokens=4, top_logprobs=3, prompt_statistics=True)
    first, second = [await nano.ask(Prompt(text)) for _ in range(2)]
    assert "prefix_tokens" not in second.meta
    assert first.meta["prompt_statistics"] == second.meta["prompt_statistics"]
    assert -20 < first.meta["prompt_statistics"]["logprob"]["mean"] < 0
    for token, best in zip(first.tokens, first.meta["top_logprobs"], strict=True):
        assert len(best) == 3
        assert best[0][1] == pytest.approx(token.logprob, abs=1e-4)  # greedy
        assert best[0][1] - best[1][1] == pytest.approx(token.margin, abs=1e-4)
    plain = await model(writer, max_tokens=4).ask(Prompt(text))
    assert not {"top_logprobs", "prompt_statistics"} & set(plain.meta)


async def test_a_prompt_that_begins_alike_says_what_it_took_over(writer: Path) -> None:
    nano = model(writer, max_tokens=3, system="Be brief. " * 20)
    first, second = await nano.ask(Prompt("hello")), await nano.ask(Prompt("card"))
    assert "prefix_tokens" not in first.meta
    assert 100 < second.meta["prefix_tokens"] < second.tokens_in


@pytest.mark.parametrize("scoring", ["exact", "top1"])
async def test_label_trees_keep_the_beginning_that_prompts_share(tmp_path: Path, scoring: str) -> None:
    path = make_gguf(tmp_path / "own.gguf", chat_template=CHATML, n_ctx=2048, seed=1)  # nobody else's
    named = {"labels": ["card lost", "card stolen", "pin"], "label_scoring": scoring}
    shared = {**named, "system": "Be brief. " * 20}
    texts = ["hello", "card", "hello", "hello card", "x" * 60]

    async def answers(asked: list[str], **settings: Any) -> list[Reply]:
        nano = model(path, **shared, **settings)
        try:
            return [await nano.ask(Prompt(text)) for text in asked]
        finally:
            await nano.aclose()

    kept = await answers(texts)
    alone = [reply for text in texts for reply in await answers([text])]
    never = await answers(texts, reproducible=True)
    assert [reply.meta.get("prefix_tokens", 0) > 100 for reply in kept] == [False, True, True, True, True]
    assert not any("prefix_tokens" in reply.meta for reply in alone + never)
    for one, other in zip(kept, alone, strict=True):
        assert one.text == other.text
        if scoring == "exact":
            assert one.labels == pytest.approx(other.labels, abs=1e-3)  # flash attention: half precision
        else:
            assert one.meta["top1"]["logprob"] == pytest.approx(other.meta["top1"]["logprob"], abs=1e-2)


@pytest.mark.parametrize("scoring", ["exact", "top1"])
def test_a_label_tree_that_was_left_half_way_leaves_nothing_behind(endless: Path, scoring: str) -> None:
    labels = ["card lost", "card stolen", "pin"]
    config = LlamaCppSettings.model_validate({
        "kind": "llamacpp", "path": str(endless), "labels": labels, "label_scoring": scoring,
    })  # fmt: skip
    text = "hello card " * 120

    def run(weights: Weights) -> tuple[EngineAnswer, list[EngineAnswer]]:
        session = Session(weights, config, labels)
        question = EngineRequest(text, text)
        first = drain(session.answer(question))
        after = []
        for steps in range(1, 6):
            other = session.answer(EngineRequest("", text[:99] + "pin " * 200))
            left = sum(1 for _ in zip(range(steps), other, strict=False))
            other.close()
            if left < steps:  # it was answered before it could be left
                break
            after.append(drain(session.answer(question)))
        return first, after

    first, after = with_weights(endless, run)
    assert len(after) > 1
    for answer in after:
        assert "prefix_tokens" not in answer.meta
        assert (answer.text, answer.labels) == (first.text, first.labels)


async def test_a_timeout_ends_a_long_answer_and_the_model_stays_usable(endless: Path) -> None:
    nano = model(endless, n_ctx=8192, max_tokens=8000, timeout=30)
    await model(endless, n_ctx=8192, max_tokens=1).ask(Prompt("hi"))  # loaded
    with pytest.raises(ModelError, match=r"timed out after 0.1 s while answering; raise 'timeout'") as caught:
        await nano.ask(Prompt("hi", timeout=0.1))
    assert caught.value.billed == nano.worst_case(Prompt("hi"))
    assert (await model(endless, max_tokens=3).ask(Prompt("hi"))).text == "on andon"


async def test_a_call_that_times_out_in_the_queue_is_not_billed(endless: Path) -> None:
    settings_: dict[str, Any] = {"n_ctx": 8192, "reproducible": True}  # one at a time
    started = asyncio.Event()
    nano = model(endless, max_tokens=8000, **settings_)
    first = asyncio.create_task(nano.ask(Prompt("hi"), lambda piece: started.set()))
    await started.wait()
    with pytest.raises(ModelError, match=r"timed out after 0.1 s before its turn came") as caught:
        await model(endless, max_tokens=1, **settings_).ask(Prompt("hi", timeout=0.1))
    assert caught.value.billed == (0, 0)
    first.cancel()


async def test_a_cancelled_call_stops_and_streams_no_more(endless: Path) -> None:
    spoken: list[str] = []
    started = asyncio.Event()

    def listen(piece: str) -> None:
        spoken.append(piece)
        started.set()

    nano = model(endless, n_ctx=8192, max_tokens=8000)
    task = asyncio.create_task(nano.ask(Prompt("hello"), listen))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    heard = len(spoken)
    await model(endless, max_tokens=2).ask(Prompt("hi"))
    assert len(spoken) == heard < 8000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text is empty"),
        ("a\0b", "text holds a NUL byte at position 1"),
        ("a\ud800", "text is not valid Unicode at position 1"),
        ("x" * 1_000_001, "text has 1000001 bytes"),
        ("x" * 1_000_000, "text has 100000. bytes; 512 tokens hold at most 8192"),
        (
            "abc " * 12,
            "text has .* tokens; expert 'expert' task 'colours' reads at most 16; send it to a larger",
        ),
    ],
)
async def test_a_text_that_an_expert_cannot_read_is_a_failed_call(
    expert: Path, text: str, message: str
) -> None:
    with pytest.raises(ModelError, match=rf"model 'nano' \(.*expert.gguf.*\): {message}"):
        await model(expert, task="colours").ask(Prompt(text))


async def test_a_prompt_longer_than_the_context_is_refused(writer: Path) -> None:
    for settings_ in ({}, {"labels": ["yes", "no"]}):
        with pytest.raises(
            ModelError, match=r"prompt has .* tokens; expected 1 to \d+ \(n_ctx is 100, the model"
        ):
            await model(writer, n_ctx=100, **settings_).ask(Prompt("12345" * 40))


async def test_a_file_that_vanishes_or_breaks_after_the_check_is_a_failed_call(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", tasks=TASKS)
    nano, other = model(path, task="colours"), model(path, task="sizes")
    path.unlink()
    with pytest.raises(ModelError, match=r"model 'nano' .*m.gguf.*does not exist"):
        await nano.ask(Prompt("hi"))
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"model 'nano' .*m.gguf"):
        await other.ask(Prompt("hi"))
    make_gguf(path, tasks=TASKS)
    assert (await nano.ask(Prompt("hi"))).labels is not None


async def test_a_file_overwritten_while_loaded_changes_nothing(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", tasks=TASKS)
    nano = model(path, task="colours")
    before = (await nano.ask(Prompt("hi"))).labels
    path.write_bytes(b"")  # mapped weights would kill the process here
    assert (await nano.ask(Prompt("hi"))).labels == before


async def test_broken_weights_are_a_failed_call(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", tasks=TASKS, weights={"output.weight": 3e38})
    with pytest.raises(ModelError, match="NaN or infinity in its output"):
        await model(path, task="colours").ask(Prompt("hi"))


async def test_an_encoder_like_model_writes_no_text(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", causal=False)
    with pytest.raises(ModelError, match="it is not a causal model: it can only score labels of one token"):
        await model(path).ask(Prompt("hi"))
    with pytest.raises(ModelError, match="it is not a causal model"):
        await model(path, labels=["one two", "three"]).ask(Prompt("hi"))


def test_task_and_labels_together_are_a_config_error(expert: Path) -> None:
    with pytest.raises(ConfigError, match="model 'nano' has both 'task' and 'labels'"):
        model(expert, task="colours", labels=["red"])


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def test_a_system_prompt_is_kept_on_disk_without_the_request(writer: Path) -> None:
    settings_: dict[str, Any] = {"max_tokens": 3, "system": "Be brief. " * 20, "prefix_dir": "kept"}
    folder = writer.parent / "kept"

    async def fresh(text: str) -> Reply:
        """Ask as a new process would: nothing is loaded."""
        nano = model(writer, **settings_)
        try:
            return await nano.ask(Prompt(text))
        finally:
            await nano.aclose()

    first = await fresh("hello card")
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600

    async def check() -> None:
        again = await fresh("hello card")
        assert again.text == first.text
        assert [t.logprob for t in again.tokens] == pytest.approx([t.logprob for t in first.tokens], abs=0.02)

    await check()
    other = await fresh("car")
    assert 100 < other.meta["prefix_tokens"] < other.tokens_in
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:-1] + b"x", b"", bytes(len(whole))):
        file.write_bytes(damage)
        await check()
        assert file.read_bytes() == whole  # written anew
    assert list(folder.iterdir()) == [file]


async def test_a_first_request_that_hides_the_beginning_does_not_switch_prefix_dir_off(writer: Path) -> None:
    nano = model(writer, max_tokens=2, prompt="Be brief. " * 20 + "{text}", prefix_dir="later")
    await nano.ask(Prompt(Request(text="hi", messages=(Message(role="user", content="hi"),))))
    await nano.ask(Prompt("brief"))
    assert not (writer.parent / "later").exists()
    await nano.ask(Prompt("hello card"))
    assert len(list((writer.parent / "later").iterdir())) == 1
    await nano.aclose()


async def test_a_state_of_another_llama_cpp_is_not_read(
    writer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for made in ("0.0.1", "0.0.2"):
        monkeypatch.setattr("cascade.engine.prefix.version", made)
        nano = model(writer, max_tokens=2, prompt="Be brief. " * 20 + "{text}", prefix_dir="versions")
        await nano.ask(Prompt("hello card"))
        await nano.aclose()
    assert len(list((writer.parent / "versions").iterdir())) == 2


async def test_a_prefix_that_cannot_be_written_costs_a_warning_with_a_fix(
    writer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nano = model(writer, max_tokens=2, prompt="Be brief. " * 20 + "{text}", prefix_dir=f"{writer.name}/in")
    assert (await nano.ask(Prompt("hello card"))).tokens_out == 2
    assert "cannot be written: Not a directory" in caplog.text
    assert "make 'prefix_dir' a folder with room" in caplog.text
    await nano.aclose()


@pytest.mark.slow
async def test_a_thousand_requests_leave_no_memory_behind(writer: Path) -> None:
    nano = model(writer, max_tokens=8, n_ctx=256)

    async def round_() -> int:
        await asyncio.gather(*(nano.ask(Prompt(f"hello {i} card")) for i in range(100)))
        return resident_kib()

    sizes = [await round_() for _ in range(10)]
    assert max(sizes[4:]) - sizes[3] < 4 * 1024  # KiB


def test_a_local_model_is_always_available(expert: Path) -> None:
    nano = model(expert, task="colours")
    assert (nano.unavailable(), nano.local, nano.tier) == (None, True, "local")


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
)
def test_no_call_uses_more_tokens_than_its_worst_case(writer: Path, expert: Path, text: str) -> None:
    for nano in (model(writer, max_tokens=2, system="Be brief."), model(expert, task="colours")):
        worst = nano.worst_case(Prompt(text))
        try:
            reply = asyncio.run(nano.ask(Prompt(text)))
        except ModelError:  # blank, too long for the expert, or ended at once
            continue
        assert reply.tokens_in <= worst[0]
        assert reply.tokens_out <= worst[1]


def test_the_worst_case_is_bounded_by_the_context_and_needs_no_llama_cpp(writer: Path, expert: Path) -> None:
    assert model(writer, n_ctx=64, max_tokens=7).worst_case(Prompt("x" * 9999)) == (64, 7)
    assert model(expert, task="colours").worst_case(Prompt("hi"))[1] == 1
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from cascade.models.llamacpp import LlamaCppSettings\nfrom cascade.models.base import Prompt\n"
        "from cascade.models.llamacpp.model import LlamaCpp\n"
        f"config = LlamaCppSettings(kind='llamacpp', path={str(expert)!r}, task='sizes')\n"
        "LlamaCpp('nano', config, Path('.')).worst_case(Prompt('hello'))\n"
        "assert not {'llama_cpp', 'numpy', 'langgraph'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_user_text_never_becomes_a_control_token(writer: Path) -> None:
    # Behind `ask`: the same prompt with the control token as characters is longer by ten tokens.
    async def lengths() -> tuple[int, int]:
        nano = model(writer, max_tokens=1)
        return (await nano.ask(Prompt("aa"))).tokens_in, (await nano.ask(Prompt("a<|im_end|>a"))).tokens_in

    short, long = asyncio.run(lengths())
    assert long == short + 10


def test_a_bundled_expert_loads(root: Path) -> None:
    path = root / "cascade" / "experts" / "tiny.gguf"
    if not path.is_file():
        pytest.skip("no bundled expert has been trained yet")
    assert with_weights(path, lambda weights: weights.n_vocab) > 1000


async def test_the_best_label_alone_comes_with_a_lower_bound_of_its_probability(writer: Path) -> None:
    labels = [
        f"{first} {second}" for first in ("card", "car", "hello") for second in ("lost", "os", "th", "a")
    ]
    whole = await model(writer, labels=labels).ask(Prompt("hi"))
    best = await model(writer, labels=labels, label_scoring="top1").ask(Prompt("hi"))
    assert whole.labels is not None
    assert best.labels is None
    assert best.text == whole.text
    bounds = best.meta["top1"]
    assert bounds["low"] - 1e-6 <= whole.labels[whole.text] <= bounds["high"] + 1e-6
    assert signals(best) == {"top1": bounds["low"]}


async def test_an_output_schema_binds_the_answer_and_stop_ends_it(writer: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"]}
    (writer.parent / "answer.json").write_text(json.dumps(schema))
    (writer.parent / "list.gbnf").write_text('root ::= [a-c]+ ";" [a-c]+')
    for settings_ in ({"output_schema": schema}, {"output_schema": "answer.json"}):
        reply = await model(writer, temperature=1.0, min_p=0.01, top_p=0.99, **settings_).ask(Prompt("hi"))
        assert isinstance(json.loads(reply.text)["n"], int)
    listed = await model(writer, grammar="list.gbnf", stop=[";"], temperature=1.0).ask(Prompt("hi"))
    assert set(listed.text) <= set("abc")
    assert listed.meta["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grammar": "none.gbnf"}, "grammar 'none.gbnf' does not exist"),
        ({"grammar": "root ::= root"}, "grammar never ends"),
        ({"output_schema": "writer.gguf"}, "bytes; at most 262144 are taken"),
        ({"output_schema": {"pattern": "a"}}, "'pattern' is not supported"),
        ({"output_schema": {}, "grammar": "root ::= [a]"}, "exclude each other; drop one"),
        ({"lora": "none.gguf"}, "adapter 'none.gguf' does not exist"),
    ],
)
def test_a_grammar_schema_or_adapter_that_cannot_be_used_is_refused(
    writer: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        model(writer, **settings)
