"""150 labels of one to six tokens on a 300-token prompt: the engine's tree against what it replaces.

The baselines run on the bare binding in a process of their own, with the same tokens: one decode a label on
the prompt's cells, and each label from scratch. Both sides' distributions are compared too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from cascade.engine.labels import LabelTree
from cascade.models.llamacpp import LlamaCppSettings
from engine_sections.asking import Settings, close, log, model, seed, timed, words
from engine_sections.figures import Round, Row, at_least, at_most, judge, skipped, verdict_row
from engine_sections.load import Watch
from engine_sections.models import Words
from engine_sections.reference import Reference, reference

SECTION = "labels"
LABELS = 150
PROMPT = 300
SHARED = 260  # of them, where prompts begin alike
N_CTX = 512
TREE = at_least(4.0)
SINGLE = at_most(1.1)  # one forward pass, and what the measuring itself scatters
NAIVE_SAMPLE = 6


def draw_labels(rng: random.Random, n_words: int, count: int) -> list[list[int]]:
    """Return `count` labels of one to six words that share their beginnings; none begins another.

    Some first words are shared, as in real label sets ("card arrival", "card linking").
    """
    firsts = [rng.randrange(n_words) for _ in range(30)]
    made: set[tuple[int, ...]] = set()
    beginnings: set[tuple[int, ...]] = set()
    while len(made) < count:
        length = rng.randint(1, 6)
        first = rng.choice(firsts) if length > 1 else rng.randrange(n_words)
        rest = [rng.randrange(n_words) for _ in range(length - 1)]
        label = (first, *rest)
        shared = [one for one in sorted(made) if len(one) > 2]
        if shared and length > 2 and rng.random() < 0.4:
            label = (*rng.choice(shared)[:2], *rest[1:])
        own = {label[:end] for end in range(1, len(label))}
        if label in made or label in beginnings or own & made:
            continue
        made.add(label)
        beginnings |= own
    return [list(label) for label in sorted(made)]


def distribution(logprobs: Sequence[float]) -> np.ndarray:
    """Return the probabilities of labels, summing to 1, from their log-probabilities."""
    weight = np.exp(np.asarray(logprobs) - max(logprobs))
    share: np.ndarray = weight / weight.sum()
    return share


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    rows: list[Row] = []
    for name in settings.models:
        async with reference() as other:
            await other.do(
                "open_bare", path=str(settings.file(name)), threads=settings.threads, n_ctx=2 * N_CTX
            )
            rows += await _tree(settings, name, other)
            rows += [await _single(settings, name, other), await _best(settings, name, other)]
        rows.append(await _alike(settings, name))
    return rows


async def _tree(settings: Settings, name: str, other: Reference) -> list[Row]:
    source, rng = words(name), seed(SECTION, name)
    listed = draw_labels(rng, len(source.words), LABELS)
    tokens = [source.tokens(label) for label in listed]
    named = _named(source, listed)
    tree = model(settings.file(name), settings.threads, labels=named, n_ctx=N_CTX)
    alone = model(settings.file(name), settings.threads, max_tokens=1, n_ctx=N_CTX)
    await timed(tree, source.text(source.draw(rng, 16)))
    await timed(alone, source.text(source.draw(rng, 16)))
    inner = len(LabelTree(named, tokens).inner_nodes)
    per_label, bound, scratch, whole, apart, noise = [], [], [], [], 0.0, 0.0
    for turn in range(settings.rounds(5)):
        log(f"{SECTION} {name} tree, round {turn + 1}")
        watch = Watch()
        prompt = source.draw(rng, PROMPT)
        # The prompt's own time is that of another new prompt: the same one could be reused.
        read, _ = await timed(alone, source.text(source.draw(rng, PROMPT)))
        took, reply = await timed(tree, source.text(prompt))
        theirs = await other.do("labels", prompt=source.tokens(prompt), labels=tokens)
        chain = source.tokens(source.draw(rng, inner))
        once = await other.do("nodes", prompt=source.tokens(prompt), tokens=chain)
        naive = await other.do(
            "naive", prompt=source.tokens(prompt), labels=tokens[:: LABELS // NAIVE_SAMPLE]
        )
        load = watch.others()
        score = max(took - read, 1e-6)
        per_label.append(Round(score, theirs["score"], load))
        bound.append(Round(once["seconds"], theirs["score"], load))
        scratch.append(Round(took, naive["seconds"] * LABELS, load))
        whole.append(Round(took, theirs["prompt"] + theirs["score"], load))
        mine = np.array([(reply.labels or {})[label] for label in named])
        single = distribution(theirs["logprobs"])
        apart = max(apart, float(np.abs(mine - single).max()))
        noise = max(noise, float(np.abs(np.log(mine) - np.log(single)).max()))
    await close(tree, alone)
    rows = []
    for what, rounds, wanted in (
        ("one decode a label over tree, without the prompt", per_label, TREE),
        (f"one decode a label over one bare decode of {inner} tokens, as the tree has", bound, None),
        ("one decode a label over tree, with the prompt", whole, None),
        (f"each label from scratch (by {NAIVE_SAMPLE}) over tree", scratch, None),
    ):
        found = judge(rounds, times=True)
        note = f"{1e3 * found.ours:.1f} against {1e3 * found.theirs:.1f} ms"
        rows.append(verdict_row(SECTION, what, name, found, wanted, note))
    what = "largest difference of a label's probability"
    note = f"{noise:.3f} nat of its logarithm, over up to six tokens and the sum of all labels"
    rows.append(Row(SECTION, what, name, apart, "", others=judge(whole).others, rounds=len(whole), note=note))
    return rows


async def _single(settings: Settings, name: str, other: Reference) -> Row:
    source, rng = words(name), seed(SECTION, name, "single")
    listed = [[index] for index in rng.sample(range(len(source.words)), LABELS)]
    asked = model(settings.file(name), settings.threads, labels=_named(source, listed), n_ctx=N_CTX)
    await timed(asked, source.text(source.draw(rng, 16)))
    await other.do("prompt", prompt=source.tokens(source.draw(rng, PROMPT)))
    rounds = []
    for turn in range(settings.rounds(7)):
        log(f"{SECTION} {name} single tokens, round {turn + 1}")
        watch = Watch()
        took, _ = await timed(asked, source.text(source.draw(rng, PROMPT)))
        theirs = await other.do("prompt", prompt=source.tokens(source.draw(rng, PROMPT)))
        rounds.append(Round(took, theirs["seconds"], watch.others()))
    await close(asked)
    found = judge(rounds)
    note = f"{1e3 * found.ours:.1f} against {1e3 * found.theirs:.1f} ms"
    what = "150 labels of one token over one bare forward pass"
    return verdict_row(SECTION, what, name, found, SINGLE, note)


async def _best(settings: Settings, name: str, other: Reference) -> Row:
    """Return what the best label alone costs beyond the prompt. Random weights leave least to prune."""
    what = "best label with pruning beyond the prompt, over the prompt's own time"
    if "label_scoring" not in LlamaCppSettings.model_fields:
        return skipped(SECTION, what, name, "the graph language has no key 'label_scoring'")
    source, rng = words(name), seed(SECTION, name, "best")
    listed = draw_labels(rng, len(source.words), LABELS)
    tokens, named = [source.tokens(label) for label in listed], _named(source, listed)
    config = {"n_ctx": N_CTX, "labels": named, "label_scoring": "top1"}
    best = model(settings.file(name), settings.threads, **config)
    alone = model(settings.file(name), settings.threads, max_tokens=1, n_ctx=N_CTX)
    await timed(best, source.text(source.draw(rng, 16)))
    await timed(alone, source.text(source.draw(rng, 16)))
    rounds, right = [], 0
    for turn in range(settings.rounds(5)):
        log(f"{SECTION} {name} best label, round {turn + 1}")
        watch = Watch()
        prompt = source.draw(rng, PROMPT)
        read, _ = await timed(alone, source.text(source.draw(rng, PROMPT)))
        took, reply = await timed(best, source.text(prompt))
        rounds.append(Round(max(took - read, 0.0), read, watch.others()))
        theirs = await other.do("labels", prompt=source.tokens(prompt), labels=tokens)
        right += reply.text == named[int(np.argmax(theirs["logprobs"]))]
    await close(best, alone)
    found = judge(rounds)
    note = (
        f"{1e3 * found.ours:.1f} beyond {1e3 * found.theirs:.1f} ms; {right} of {len(rounds)} as one by one"
    )
    return verdict_row(SECTION, what, name, found, note=note)


async def _alike(settings: Settings, name: str) -> Row:
    """Return what a tree gains where its prompt begins like the one before: a system message, a template."""
    source, rng = words(name), seed(SECTION, name, "alike")
    listed = draw_labels(rng, len(source.words), LABELS)
    asked = model(settings.file(name), settings.threads, labels=_named(source, listed), n_ctx=N_CTX)
    shared = source.text(source.draw(rng, SHARED))
    rounds = []
    for turn in range(1 + settings.rounds(5)):
        log(f"{SECTION} {name} alike, round {turn}")
        watch = Watch()
        new, _ = await timed(asked, shared + source.text(source.draw(rng, PROMPT - SHARED)))
        again, _ = await timed(asked, shared + source.text(source.draw(rng, PROMPT - SHARED)))
        await timed(asked, source.text(source.draw(rng, PROMPT)))
        rounds.append(Round(again, new, watch.others()))
    await close(asked)
    found = judge(rounds[1:], times=True)  # the first one warms up
    what = f"a prompt that begins like the one before ({SHARED} of {PROMPT} tokens), a new one over it"
    note = f"{1e3 * found.ours:.1f} against {1e3 * found.theirs:.1f} ms, all labels scored in both"
    return verdict_row(SECTION, what, name, found, note=note)


def _named(source: Words, listed: list[list[int]]) -> list[str]:
    return [source.text(label).strip() for label in listed]
