"""Templates are filled in once, labels are recognised, and tokens are bounded by bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import ModelError
from cascade.models.prompted import Prompted
from cascade.models.prompts import chosen_label, match_label, most_tokens, render


def test_the_request_is_never_expanded() -> None:
    config = Prompted(kind="any", prompt="{labels} <- {text} and {other}")
    assert render(config, "{labels} {text}", ["a", "b"]) == "a\nb <- {labels} {text} and {other}"
    assert render(Prompted(kind="any"), "{labels}", ["a"]) == "{labels}"
    assert render(Prompted(kind="any", prompt="x {labels}"), "t", None) == "x "


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("oos", "oos"),
        ("OOS.", "oos"),
        ("*Oos*\n", "oos"),
        ("“oos”", "oos"),
        ("_x_", "_x_"),
        ("`_X_`", "_x_"),
        ("yes", None),
        ("oos, I think", None),
        ("", None),
        ("Twin", "Twin"),
        ("TWIN", None),
        ("```\noos\n```", "oos"),
        ("```text\nOOS\n```\n", "oos"),
    ],
)
def test_a_label_is_recognised_only_if_it_is_the_whole_answer(said: str, label: str | None) -> None:
    assert match_label(said, ["oos", "_x_", "Twin", "twin"]) == label


def test_an_answer_that_is_no_label_names_the_answer_and_how_many_there_are() -> None:
    with pytest.raises(ModelError, match="m answered 'foo', which is not one of its 2 labels"):
        chosen_label("m", " foo ", ["a", "b"])


@given(st.text())
def test_the_token_bound_covers_bytes_and_every_normal_form(text: str) -> None:
    import unicodedata

    clean = text.encode("utf-8", "ignore").decode()
    forms = ("NFC", "NFD", "NFKC", "NFKD")
    assert most_tokens(clean) > max(len(unicodedata.normalize(form, clean).encode()) for form in forms)
    assert most_tokens(clean) > len(clean.encode())
