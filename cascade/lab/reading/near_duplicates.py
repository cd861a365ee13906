"""Which texts nearly repeat one another: MinHash over runs of eight bytes, in bands.

Rows that nearly repeat must stand on one side of a split, or a measured accuracy is too high. Texts count as
near duplicates if the estimated Jaccard similarity of their sets of eight-byte runs is at least `SIMILARITY`.
Case and runs of spaces do not count, nor which digits stand in a text of words. The estimate is that of
Broder, "On the resemblance and containment of documents" (1997); the bands are locality-sensitive hashing
(Indyk and Motwani, 1998).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIMILARITY = 0.8
MAX_BYTES = 4000  # of a text that are compared, from its beginning
_RUN = 8  # bytes: as many as a machine word, so that runs are read in place
_HASHES = 64
_BAND = 4  # hashes a band: two texts of similarity 0.8 share one of the 16 bands with probability .9998
_MAX_DIGITS = 0.3  # of a text's characters, if other digits shall not make it another text
_CHUNK = 1 << 18  # runs hashed at once, so that they stay in the processor's cache
_SEED = 20240229
_SPACES = re.compile(r"\s+")
_DIGITS = re.compile(r"\d")


def normal_form(text: str) -> str:
    """Return what two texts that say the same share: letters in lower case, single spaces."""
    return _SPACES.sub(" ", text).strip().casefold()


def near_duplicate_groups(forms: Sequence[str], same: Sequence[object] | None = None) -> list[int]:
    """Return the group of each text, numbered from 0 in order of first rows; most groups are one text.

    Deterministic. 200,000 texts of 200 characters take about half a minute of one core.

    Args:
        forms: the texts in their `normal_form`.
        same: a key a text; texts of one key (a document, say) are of one group, whatever they say.
    """
    import numpy as np

    first: dict[str, int] = {}
    index = [first.setdefault(form, len(first)) for form in forms]
    parents = np.arange(len(first))
    for one, other in _similar_pairs(list(first)):
        _join(parents, one, other)
    keys: dict[object, int] = {}
    for number, key in zip(index, same or (), strict=False):
        if key is not None:
            _join(parents, keys.setdefault(key, number), number)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(_root(parents, number), len(numbers)) for number in index]


def _similar_pairs(forms: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of similar texts that connect each group; not all pairs in it."""
    import numpy as np

    if not forms:
        return []
    signatures = _signatures(forms)
    pairs = []
    for start in range(0, _HASHES, _BAND):
        band = np.ascontiguousarray(signatures[:, start : start + _BAND])
        keys = band.view([("", band.dtype)] * _BAND).ravel()
        order = np.argsort(keys, kind="stable")
        ranked = band[order]
        equal = (ranked[1:] == ranked[:-1]).all(axis=1)
        pairs.append(np.stack([order[:-1][equal], order[1:][equal]], axis=1))
        # Each is compared with the first of its bucket too, in case its neighbour is another's.
        heads = np.maximum.accumulate(np.where(np.concatenate([[True], ~equal]), np.arange(len(order)), 0))
        inner = np.flatnonzero(np.concatenate([[False], equal]))
        pairs.append(np.stack([order[heads[inner]], order[inner]], axis=1))
    candidates = np.unique(np.concatenate(pairs), axis=0)
    return [(int(one), int(other)) for one, other in candidates[_are_similar(signatures, candidates)]]


def _are_similar(signatures: NDArray[np.uint32], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    import numpy as np

    chunks = [
        (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) >= SIMILARITY
        for part in np.array_split(pairs, len(pairs) // _CHUNK + 1)
    ]
    return np.concatenate(chunks)


def _signatures(forms: Sequence[str]) -> NDArray[np.uint32]:
    """Return the smallest hashes of each text's runs of bytes, (texts, hashes)."""
    import numpy as np

    random = np.random.default_rng(_SEED)
    factors = random.integers(0, 1 << 63, _HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(forms), _HASHES), dtype=np.uint32)
    begin = 0
    while begin < len(forms):
        runs, starts, end = _runs(forms, begin)
        for number, factor in enumerate(factors):
            hashes = (runs * factor) >> np.uint64(32)
            signatures[begin:end, number] = np.minimum.reduceat(hashes, starts)
        begin = end
    return signatures


def _runs(forms: Sequence[str], begin: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
    """Return the mixed runs of the next texts, where each text's begin, and the first text after them."""
    import numpy as np

    parts, starts, size, end = [], [], 0, begin
    while end < len(forms) and (size < _CHUNK or end == begin):
        data = _compared(forms[end]).encode("utf-8", "replace")[:MAX_BYTES]
        data = b" " + data + b" " * max(1, _RUN - 1 - len(data))
        parts.append(data)
        starts.append(size)
        size += len(data)
        end += 1
    joined = np.frombuffer(b"".join(parts) + b" " * (_RUN - 1), dtype=np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(joined, _RUN)
    runs = np.ascontiguousarray(windows).view("<u8").ravel()
    mixed = (runs ^ (runs >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    # A run must not reach into the next text: those at a text's end repeat its first run.
    bounds = np.append(starts, size)
    for back in range(1, _RUN):
        at = bounds[1:] - back
        inside = at > bounds[:-1]
        mixed[at[inside]] = mixed[bounds[:-1][inside]]
    return mixed, np.array(starts), end


def _compared(form: str) -> str:
    """Return a text with its digits made equal, unless it is of little else."""
    equal = _DIGITS.sub("0", form[:MAX_BYTES])
    return equal if _MAX_DIGITS * len(equal) >= equal.count("0") else form


def _root(parents: NDArray[np.int64], number: int) -> int:
    root = number
    while parents[root] != root:
        root = int(parents[root])
    while parents[number] != root:
        parents[number], number = root, int(parents[number])
    return root


def _join(parents: NDArray[np.int64], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
