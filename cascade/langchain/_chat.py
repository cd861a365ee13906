"""A cascade as a LangChain chat model, usable wherever `ChatOpenAI` is.

    model = Cascade.load("graphs/support.yaml").as_chat_model()
    answer = model.bind_tools([get_weather]).invoke("Is it raining in Lund?")
    answer.response_metadata["cascade"]["status"]       # accepted, best_effort, abstained or waiting

Sampling settings (temperature, max_tokens, time-outs, retries) belong to the graph and are ignored here. The
application executes tools. Only accepted text streams, as in the cascade itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, Protocol, TypedDict, TypeVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, Field

from cascade.errors import ModelError, RequestError
from cascade.langchain._messages import (
    answer_of,
    from_langchain,
    metadata_of,
    tool_from_openai,
    usage_of,
)
from cascade.langchain._untraced import UntracedChain, UntracedChatModel
from cascade.openai_fields import IGNORED_SETTINGS, REFUSED, clean, cut
from cascade.records import Event, Request, Result, TextPiece, final_result
from cascade.requests import build_request

T = TypeVar("T")
Structured = Runnable[LanguageModelInput, dict[str, Any] | BaseModel]
_OPTIONS = frozenset({"tools", "tool_choice", "output_schema", "local_only", "account", "metadata"})
# Arguments of other chat models, besides those of OpenAI's requests, that the graph decides here.
_IGNORED = frozenset({"model", "timeout", "max_retries", "strict"})
Method = Literal["json_schema", "function_calling", "json_mode"]


class AnswersRequests(Protocol):
    """The part of `Cascade` that this module uses."""

    @property
    def version(self) -> str:
        """The graph's name with the digest of its file."""
        ...

    def astream_request(self, request: Request) -> AsyncIterator[Event]:
        """Answer a ready request step by step."""
        ...

    def run_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from synchronous code."""
        ...

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate from synchronous code."""
        ...


class ChatSettings(TypedDict, total=False):
    """The settings of a `ChatCascade`; see its attributes."""

    on_abstain: Literal["empty", "raise"]
    local_only: bool
    account: str | None
    stop: list[str] | None


def _schema_of(response_format: Any) -> dict[str, Any] | None:
    """Return the schema that OpenAI's `response_format` asks for, or a pydantic class; None for free text.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(response_format, type):
        return convert_to_json_schema(response_format)
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "json_schema" and isinstance(response_format.get("json_schema"), Mapping):
        return dict(response_format["json_schema"].get("schema") or {})
    if kind not in ("text", "json_object"):
        raise RequestError(
            f"response_format is {response_format!r:.80}; expected one of OpenAI's, or a class"
        )
    return {"type": "object"} if kind == "json_object" else None


class AbstainedError(ModelError):
    """A run gave no answer, and `on_abstain` is not `empty`; `result` is its result."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(
            f"run {result.run} gave no answer: {result.status} by rule {result.rule}; "
            f"see `cascade trace show {result.run}`"
        )


def node_of(model: ChatCascade) -> Runnable[Any, Any]:
    """Return a node for a LangGraph graph whose state has `messages`; it answers the last one."""

    def answer(state: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def answer_later(state: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return RunnableLambda(answer, afunc=answer_later, name=model.cascade.config.name)


class ChatCascade(UntracedChatModel):
    """A cascade as a LangChain chat model; made by `Cascade.as_chat_model`.

    Attributes:
        cascade: answers the requests; close it by its own `close`.
        on_abstain: what a run without an answer gives: `raise`, an `AbstainedError`; `empty`, a message
            without content whose `response_metadata["cascade"]` says why.
        local_only: call no model that is not local.
        account: the account whose budget pays.
        stop: the answer ends before the first of these strings.
    """

    cascade: Any = Field(exclude=True, repr=False)
    on_abstain: Literal["empty", "raise"] = "raise"
    local_only: bool = False
    account: str | None = None
    stop: list[str] | None = None

    @property
    def model_name(self) -> str:
        """The graph's name with the digest of its file."""
        return str(self.cascade.version)

    @property
    def _llm_type(self) -> str:
        return "cascade"

    def _traceable(self) -> bool:
        return bool(self.cascade.config.trace.langsmith)

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model_name, "local_only": self.local_only, "account": self.account}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answered: ChatResult = self.cascade.run_sync(self._agenerate(messages, stop, None, **kwargs))
        return answered

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        result = await final_result(self.cascade.astream_request(self._request(messages, kwargs)))
        message = answer_of(self._answered(result), stop or self.stop)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.cascade.iterate(self._chunks(messages, stop, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in self._chunks(messages, stop, kwargs):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Yield live text as it streams, and the rest of the answer in the last chunk."""
        stops, streamed = stop or self.stop, ""
        async for event in self.cascade.astream_request(self._request(messages, kwargs)):
            if isinstance(event, TextPiece) and not stops:
                streamed += event.text
                yield ChatGenerationChunk(message=AIMessageChunk(content=event.text))
            elif isinstance(event, Result):
                yield ChatGenerationChunk(message=self._last_chunk(self._answered(event), stops, streamed))

    def _last_chunk(self, result: Result, stops: Sequence[str] | None, streamed: str) -> AIMessageChunk:
        text = cut(result.text or "", stops)
        if not text.startswith(streamed):
            raise ModelError(
                f"run {result.run}: a model broke off while its answer was streamed; "
                f"the run ended as {result.status}, ask again without streaming"
            )
        return AIMessageChunk(
            content=text[len(streamed) :],
            tool_call_chunks=[
                tool_call_chunk(name=call.name, args=call.arguments.strip() or "{}", id=call.id, index=index)
                for index, call in enumerate(result.tool_calls)
            ],
            usage_metadata=usage_of(result),
            response_metadata=metadata_of(result),
            chunk_position="last",
        )

    def _answered(self, result: Result) -> Result:
        if self.on_abstain == "raise" and result.text is None:
            raise AbstainedError(result)
        return result

    def _request(self, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> Request:
        kwargs = clean(kwargs, {*_OPTIONS, "response_format"}, IGNORED_SETTINGS | _IGNORED)
        if "response_format" in kwargs:
            kwargs = {"output_schema": _schema_of(kwargs.pop("response_format"))} | kwargs
        for name in set(kwargs) - _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            why = REFUSED.get(name, f"known: {known}, response_format, stop")
            raise RequestError(f"unknown argument {name}; {why}")
        options: dict[str, Any] = {"local_only": self.local_only, "account": self.account}
        options |= {key: value for key, value in kwargs.items() if key in _OPTIONS}
        options["tools"] = [tool_from_openai(tool) for tool in options.get("tools") or ()]
        options["local_only"] = self.local_only or bool(options["local_only"])
        return build_request(from_langchain(messages), options)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer `tools` to the models; a call that does not satisfy its tool's schema escalates.

        Args:
            tools: functions, pydantic classes, LangChain tools, or their definitions in OpenAI's shape.
            tool_choice: auto, none, any or required (or True), or the name of the tool that must be called.
            strict: accepted and ignored, because calls are always checked against the schemas.
            **kwargs: bound to each call, such as `local_only`.

        Raises:
            RequestError: `tool_choice` names no tool.
        """
        offered = [convert_to_openai_tool(tool) for tool in tools]
        choice = tool_choice["function"]["name"] if isinstance(tool_choice, dict) else tool_choice
        choice = {None: "auto", False: "auto", True: "required", "any": "required"}.get(choice, choice)
        names = [tool["function"]["name"] for tool in offered if tool.get("type") == "function"]
        if choice not in ("auto", "none", "required", *names):
            known = ", ".join(["auto", "none", "any", "required", *names])
            raise RequestError(f"tool_choice is {choice!r}; known: {known}")
        return self.bind(tools=offered, tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Structured:
        """Return a runnable whose answers are values of `schema`; one that does not satisfy it escalates.

        Args:
            schema: a pydantic class, a TypedDict, or a JSON Schema with a title.
            include_raw: return `{"raw", "parsed", "parsing_error"}` instead of the value alone.
            method: `json_schema` asks for an answer in JSON, `function_calling` for the call of a tool named
                after the schema; `json_mode` asks for any JSON object, and only parsing checks it.
            strict: accepted and ignored, because answers are always checked against the schema.
            **kwargs: bound to each call, such as `local_only`.
        """
        shape = {"kwargs": {"method": method}, "schema": schema}
        typed = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser: Any
        if method == "function_calling":
            name = convert_to_openai_tool(schema)["function"]["name"]
            model = self.bind_tools([schema], tool_choice=name, ls_structured_output_format=shape, **kwargs)
            parser = (
                PydanticToolsParser(tools=[schema], first_tool_only=True)
                if typed
                else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            )
        else:
            asked = convert_to_json_schema(schema) if method == "json_schema" else {"type": "object"}
            model = self.bind(output_schema=asked, ls_structured_output_format=shape, **kwargs)
            parser = PydanticOutputParser(pydantic_object=schema) if typed else JsonOutputParser()
        chain: Any
        if include_raw:
            parsed = RunnablePassthrough.assign(
                parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
            )
            failed = RunnablePassthrough.assign(parsed=lambda _: None)
            chain = RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")
        else:
            chain = model | parser
        return cast("Structured", UntracedChain(chain, langsmith=self._traceable()))
