"""LangChain's own standard tests over a cascade as a chat model, with scripted models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from scripting import checked, scripted, write
from standard import CascadeUnderTest

from cascade import Cascade

# stream_events(version="v3") is beta in LangChain, which it tells each caller outside its own packages.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

JOKE = '{"setup": "Why do cats sit on keyboards?", "punchline": "To keep an eye on the mouse."}'


def calling(name: str | None, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": name, "arguments": arguments}]}


# What the standard tests ask, and what a model that can do it answers.
REPLIES: dict[str, Any] = {
    "What is the value of magic_function(3)? Use the tool.": calling("magic_function", input=3),
    "What is the value of magic_function_no_args()? Use the tool.": calling("magic_function_no_args"),
    "Using the tool, generate a Pirate greeting.": calling("greeting_generator", answer_style="Pirate"),
    "What is 3 + 4": calling("my_adder_tool", a=3, b=4),
    "Hello!": {"calls": calling("magic_function", input=1)["calls"], "text": "Hi."},
    "What is the weather in San Francisco, CA?": calling("get_weather", location="San Francisco, CA"),
    "Tell me a joke about cats.": {"text": JOKE, **calling(None, setup="a", punchline="b")},
    "Give me the setup to a joke about cats, no punchline.": {
        "text": '{"setup": "Why?"}',
        **calling(None, setup="Why?"),
    },
    "Give me a joke about cats, include the punchline.": {
        "text": JOKE,
        **calling(None, setup="a", punchline="b"),
    },
    "Tell me a joke about cats. Return the result as a JSON with 'setup' and 'punchline' keys. "
    "Return nothing other than JSON.": JOKE,
    "Create a customer named '你好啊集团' (Hello Group) - a Chinese technology company": calling(
        "unicode_customer", customer_name="你好啊集团", description="a Chinese technology company"
    ),
    "Create a customer named 'こんにちは株式会社' (Hello Corporation) - a Japanese company": calling(
        "unicode_customer", customer_name="こんにちは株式会社", description="a Japanese company"
    ),
}


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cascade]:
    """A small model that is never sure, and a strong one that knows."""
    folder = tmp_path_factory.mktemp("standard")
    models = {
        "small": scripted("Perhaps.", confidence=0.1, tier="haiku"),
        "strong": scripted("It is so.", replies=REPLIES, max_tokens=200, tier="opus"),
    }
    stages = [checked("first", "small"), {"name": "last", "ask": ["strong"]}]
    with Cascade.load(write(folder, models, stages), trace_db=str(folder / "traces.db")) as loaded:
        yield loaded


class _Scripted(CascadeUnderTest):
    @pytest.fixture(autouse=True)
    def _use(self, cascade: Cascade) -> None:
        self.cascade = cascade


class TestUnit(_Scripted, ChatModelUnitTests):
    """The unit tests."""


class TestIntegration(_Scripted, ChatModelIntegrationTests):
    """The integration tests, with structured output as JSON."""


class TestFunctionCalling(_Scripted, ChatModelIntegrationTests):
    """The integration tests, with structured output as a tool call."""

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "function_calling"}
