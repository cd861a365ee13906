"""What the survey finds in rows, and what it refuses to learn from."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from cascade.errors import RequestError
from cascade.lab.reading.languages import guess_language
from cascade.lab.reading.near_duplicates import near_duplicate_groups, normal_form
from cascade.lab.reading.row_reading import RowOptions
from cascade.lab.reading.survey import Survey, survey
from cascade.lab.tables.formats import format_rows

WORDS = ["card", "money", "transfer", "account", "top up", "fee", "cash", "exchange", "rate", "pin", "refund"]


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"please tell me {' '.join(rng.choices(WORDS, k=8))} {seed}" for _ in range(count)]


def surveyed(folder: Path, rows: list[tuple[str, str]], **told: Any) -> Survey:
    path = folder / "rows.csv"
    path.write_bytes(format_rows(path, [{"text": text, "label": label} for text, label in rows]))
    return survey(path, options=RowOptions(**told))


def refusal(folder: Path, rows: list[tuple[str, str]], **told: Any) -> str:
    with pytest.raises(RequestError) as error:
        surveyed(folder, rows, **told)
    return str(error.value)


def labelled(**counts: int) -> list[tuple[str, str]]:
    return [(text, label) for n, (label, rows) in enumerate(counts.items()) for text in texts(rows, n)]


def test_it_counts_what_is_there(tmp_path: Path) -> None:
    rows = labelled(billing=9, card=6)
    rows += [
        rows[0],
        (rows[1][0].upper(), "card"),
        ("", "card"),
        ("no label here", ""),
        ("x" * 50_000, "card"),
    ]
    found = surveyed(tmp_path, rows)
    assert found.counts == {"billing": 10, "card": 8}
    assert (found.duplicates, found.empty, found.unlabelled) == (2, 1, ["no label here"])
    assert found.longest == 50_000
    assert [(each.labels) for each in found.contradictions] == [{"billing": ["3"], "card": ["18"]}]
    assert found.groups[0] == found.groups[15]
    assert found.groups[1] == found.groups[16]
    lines = "\n".join(found.lines())
    for part in ("18 rows, 2 labels; 10 rows of 'billing' (most), 8 of 'card' (fewest)", "2 duplicates",
                 "1 contradictions; longest text 50,000", "1 without a text, 1 without a label",
                 "'billing' in line 3; 'card' in line 18"):  # fmt: skip
        assert part in lines


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (labelled(only=9), "are all 'only'; learning needs at least two"),
        (labelled(a=9, b=9, rare=3), "1 of 3 have fewer than 5 rows: 'rare' (3); add rows"),
        (labelled(a=9, b=9, rare=3), "(--drop-rare), or ask for less (--min-rows 3)"),
        (labelled(Billing=9, billing=3), "merge those that differ only in case or spaces (--merge-labels)"),
        (
            labelled(**{f"T-{n}": 1 for n in range(30)}),
            "look like ids or free texts: 30 different ones in 30 rows",
        ),
        (labelled(**{f"{n}.5": 1 for n in range(30)}), "look like numbers"),
        (labelled(**{f"{n}.5": 5 for n in range(30)}), "look like measurements"),
        ([(f"{n}", "ab"[n % 2]) for n in range(20)], "holds numbers or ids, no texts"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_the_fix(
    tmp_path: Path, rows: list[tuple[str, str]], message: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(format_rows(path, [{"text": text, "label": label} for text, label in rows]))
    with pytest.raises(RequestError) as error:
        survey(path, text="text", label="label")
    assert message in str(error.value)


def test_more_than_two_thousand_labels_are_refused(tmp_path: Path) -> None:
    rows = [(f"{text} {n}", f"label {n % 2001}") for n, text in enumerate(texts(10_005))]
    assert "2001 different ones; at most 2000 are learned" in refusal(tmp_path, rows)


def test_the_fixes_that_a_refusal_names_work(tmp_path: Path) -> None:
    rows = labelled(Billing=9, billing=3, card=8, rare=2)
    found = surveyed(tmp_path, rows, merge_labels=True, drop_rare=True)
    assert found.counts == {"Billing": 12, "card": 8}
    assert found.dropped == {"rare": 2}
    assert len(surveyed(tmp_path, rows, min_rows=2).counts) == 4
    assert any("differ only in case or spaces: 'Billing' (9 rows), 'billing' (3 rows)" in each
               for each in surveyed(tmp_path, rows, min_rows=2).remarks)  # fmt: skip


def test_a_label_that_begins_another_is_fine(tmp_path: Path) -> None:
    assert set(surveyed(tmp_path, labelled(card=6, card_lost=6)).counts) == {"card", "card_lost"}


def test_rows_of_one_document_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": t, "label": "ab"[n % 2], "doc": n // 4, "area": f"{n % 3}"} for n, t in enumerate(texts(20))
    ]
    path.write_bytes(format_rows(path, rows))
    found = survey(path, options=RowOptions(group="doc", slice="area"))
    assert [len({*found.groups[n : n + 4]}) for n in range(0, 20, 4)] == [1] * 5
    assert len(set(found.groups)) == 5
    assert found.slices == [f"{n % 3}" for n in range(20)]


def test_near_duplicates_are_grouped_as_their_true_similarity_says() -> None:
    """The estimate is within four standard errors of the Jaccard similarity of the sets of runs."""
    rng = random.Random(5)
    base = [" ".join(rng.choices([w[::-1] for w in WORDS] + WORDS, k=40)) for _ in range(300)]
    near = [text + " thanks a lot" for text in base]
    far = [" ".join([*text.split()[:20], *rng.choices(WORDS, k=20)]) for text in base]

    def runs(text: str) -> set[str]:
        return {text[at : at + 8] for at in range(len(text) - 7)}

    similar = [len(runs(a) & runs(b)) / len(runs(a) | runs(b)) for a, b in zip(base, near, strict=True)]
    unlike = [len(runs(a) & runs(b)) / len(runs(a) | runs(b)) for a, b in zip(base, far, strict=True)]
    assert min(similar) > 0.92
    assert max(unlike) < 0.6
    groups = near_duplicate_groups([normal_form(text) for text in base + near + far])
    assert all(groups[n] == groups[n + 300] for n in range(300))
    assert not any(groups[n] == groups[n + 600] for n in range(300))


def test_digits_tell_codes_apart_but_not_messages() -> None:
    forms = [
        "where is my order 12345 please",
        "where is my order 98761 please",
        "4539871",
        "4539872",
        "",
        "x",
        "y",
    ]
    assert near_duplicate_groups(forms) == [0, 0, 1, 2, 3, 4, 5]
    assert near_duplicate_groups([]) == []


def test_groups_do_not_depend_on_where_a_text_stands() -> None:
    forms = [normal_form(text) for text in texts(500) for _ in range(2)]
    order = random.Random(1).sample(range(len(forms)), len(forms))
    groups, shuffled = near_duplicate_groups(forms), near_duplicate_groups([forms[n] for n in order])
    pairs = {(groups[n], shuffled[at]) for at, n in enumerate(order)}
    assert len(pairs) == len(set(groups)) == len(set(shuffled))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is my card? I have been waiting for two weeks.", "English"),
        ("Wo bleibt meine Karte, ich warte schon seit zwei Wochen?", "German"),
        ("Je n'ai pas reçu ma carte et je ne peux pas payer", "French"),
        ("No puedo pagar con mi tarjeta, qué hago", "Spanish"),
        ("где моя карта", "Cyrillic"),
        ("カードはどこですか", "Japanese"),
        ("12345", None),
    ],
)
def test_a_language_shows_by_script_and_stop_words(text: str, language: str | None) -> None:
    assert guess_language(text) == language


def test_texts_that_are_not_english_are_warned_of(tmp_path: Path) -> None:
    rows = [
        (f"wo bleibt meine Karte und wie kann ich das {text[15:]}", "ab"[n % 2])
        for n, text in enumerate(texts(30))
    ]
    remark = next(each for each in surveyed(tmp_path, rows).remarks if "not all English" in each)
    assert "of 30 texts" in remark
    assert "100% German" in remark
    assert not any("English" in each for each in surveyed(tmp_path, labelled(a=9, b=9)).remarks)
