"""LangChain's own standard tests over a cascade whose only model is a GGUF that llama.cpp runs here.

No model that understands the questions is at hand, so each test gets a file whose greedy decoding gives the
answer it asks for. Chat template, grammar, decoding, reading of calls and validity are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from scripting import write
from standard import CascadeUnderTest

from cascade import Cascade

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

CALLS = "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}"
WITH_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML.replace(
    "{{ message['content'] +", CALLS + "{{ message['content'] +"
)


def call(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


SAYS = {
    "test_tool_calling": call("magic_function", input=3),
    "test_tool_calling_async": call("magic_function", input=3),
    "test_tool_choice": call("magic_function", input=3),
    "test_tool_calling_with_no_arguments": call("magic_function_no_args"),
    "test_bind_runnables_as_tools": call("greeting_generator", answer_style="Pirate"),
    "test_agent_loop": call("get_weather", location="San Francisco, CA"),
    "test_structured_few_shot_examples": call("my_adder_tool", a=3, b=4),
    "test_unicode_tool_call_integration": call(
        "unicode_customer", customer_name="你好啊集団こんにちは", description="a company"
    ),
}
JOKE = '{"setup": "Why do cats sit on keyboards?", "punchline": "To watch the mouse."}'


class _Local(CascadeUnderTest):
    @pytest.fixture(autouse=True)
    def _use(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
        test = request.function.__name__
        says = JOKE if "structured_output" in test or "json_mode" in test else SAYS.get(test, "Hello there.")
        make_gguf(tmp_path / "m.gguf", chat_template=self.template, says=says, n_ctx=4096)
        model = {"kind": "llamacpp", "path": "m.gguf", "max_tokens": 200}
        check = {"confidence": {"by": "logprob"}, "accept": 0.1}
        path = write(tmp_path, {"m": model}, [{"name": "only", "ask": ["m"], **check}])
        with Cascade.load(path) as self.cascade:
            yield

    template = CHATML


class TestUnit(_Local, ChatModelUnitTests):
    """The unit tests."""


class TestPlainTemplate(_Local, ChatModelIntegrationTests):
    """The integration tests; the chat template knows no tools."""


@pytest.mark.slow
class TestTemplateWithTools(_Local, ChatModelIntegrationTests):
    """The integration tests; the chat template shows tools and calls its own way."""

    template = WITH_TOOLS
