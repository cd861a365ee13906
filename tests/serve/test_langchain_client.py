"""LangChain's ChatOpenAI as a client of the server, knowing nothing of cascade."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from scripting import checked, scripted, write
from serving import serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = {"small": scripted("no idea", confidence=0.3), "large": scripted("certainly", confidence=0.9)}
    stages = [checked("first", "small"), checked("last", "large")]
    with serving(write(tmp_path_factory.mktemp("langchain"), models, stages)) as (_, url):
        yield f"{url}/v1"


def model(url: str, **settings: object) -> ChatOpenAI:
    return ChatOpenAI(model="test", base_url=url, api_key=SecretStr("none"), max_retries=0, **settings)  # type: ignore[arg-type]


def test_a_conversation_is_answered_with_usage(url: str) -> None:
    said = [
        SystemMessage("Be brief."), HumanMessage("Is it?"), AIMessage("What?"), HumanMessage("Is it true?"),
    ]  # fmt: skip
    answer = model(url).invoke(said)
    assert answer.content == "certainly"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3


async def test_a_stream_is_the_accepted_answer(url: str) -> None:
    pieces = [piece async for piece in model(url, stream_usage=True).astream("Is it?")]
    assert "".join(str(piece.content) for piece in pieces) == "certainly"
    assert any(piece.usage_metadata for piece in pieces)


def test_the_responses_api_works_too(url: str) -> None:
    answer = model(url, use_responses_api=True).invoke("Is it?")
    assert answer.text == "certainly"
