"""Time to the first token of a prompt of 640 tokens: with 600 of them asked before, and all new.

Beside it what the bare binding gains where the 600 tokens cost nothing at all, not even a copy.
"""

from __future__ import annotations

from typing import Any

from engine_sections.asking import Settings, close, log, model, seed, timed, words
from engine_sections.figures import Round, Row, at_least, judge, skipped, verdict_row
from engine_sections.load import Watch, rss
from engine_sections.reference import Reference, reference

SECTION = "prefix"
SHARED, OWN = 600, 40
TARGET = at_least(8.0)
# What a reply's `meta` calls the tokens that were not evaluated again.
_KEYS = ("reused", "prefix_tokens", "reused_tokens", "tokens_reused", "cached_tokens")


def reused(meta: dict[str, Any]) -> int:
    """Return how many prompt tokens a reply says were reused; 0 where it says nothing."""
    return max((int(meta[key]) for key in _KEYS if isinstance(meta.get(key), int)), default=0)


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    rows: list[Row] = []
    for name in settings.models:
        rows += await _model(settings, name)
        async with reference() as other:
            rows.append(await _bare(settings, name, other))
    return rows


async def _bare(settings: Settings, name: str, other: Reference) -> Row:
    source, rng = words(name), seed(SECTION, name, "bare")
    await other.do("open_bare", path=str(settings.file(name)), threads=settings.threads, n_ctx=1024)
    rounds = []
    for _ in range(1 + settings.rounds(7)):
        watch = Watch()
        prompt = source.tokens(source.draw(rng, SHARED + OWN))
        took = await other.do("reuse", prompt=prompt, shared=SHARED)
        rounds.append(Round(took["rest"], took["whole"], watch.others()))
    found = judge(rounds[1:], times=True)  # the first one warms up
    note = f"{1e3 * found.ours:.1f} against {1e3 * found.theirs:.1f} ms; the binding alone"
    return verdict_row(SECTION, f"{SHARED + OWN} tokens over the last {OWN}", name, found, note=note)


async def _model(settings: Settings, name: str) -> list[Row]:
    source, rng = words(name), seed(SECTION, name)
    shared = source.text(source.draw(rng, SHARED))
    asked = model(settings.file(name), settings.threads, n_ctx=1024, max_tokens=1)
    await timed(asked, source.text(source.draw(rng, SHARED + OWN)))
    before = rss()
    await timed(asked, shared + source.text(source.draw(rng, OWN)))
    rounds, tokens = [], []
    for turn in range(settings.rounds(7)):
        log(f"{SECTION} {name}, round {turn + 1}")
        watch = Watch()
        again, reply = await timed(asked, shared + source.text(source.draw(rng, OWN)))
        new, _ = await timed(asked, source.text(source.draw(rng, SHARED + OWN)))
        tokens.append(reused(reply.meta))
        rounds.append(Round(again, new, watch.others()))
    after = rss()
    await close(asked)
    found = judge(rounds, times=True)
    note = f"{1e3 * found.ours:.1f} against {1e3 * found.theirs:.1f} ms; {min(tokens)} tokens reused"
    what = f"no reuse over reuse of {SHARED} of {SHARED + OWN} tokens"
    if not min(tokens):
        why = f"no reuse is reported in Reply.meta; {found.ratio:.2f} measured all the same, {note}"
        return [skipped(SECTION, what, name, why, TARGET)]
    memory = f"{before:.0f} MiB before the prefix was kept"
    return [
        verdict_row(SECTION, what, name, found, TARGET, note),
        Row(SECTION, "resident memory", name, after, "MiB", others=found.others, note=memory),
    ]
