"""How one configured model answers: with an expert's task, over a label set, or in free text.

Used on the decode thread only. `Session.answer` is the job that the worker steps through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.context import ContextShape, max_branches
from cascade.engine.examples import ExampleClassifier
from cascade.engine.experts import HeadClassifier, LearnedTask
from cascade.engine.generate import GenerateOptions, StopEarly, decode, generate, prefill
from cascade.engine.labels import LabelTree, label_tree, single_token_tree
from cascade.engine.prefix import PrefixFiles, common_prefix_length
from cascade.engine.render import Renderer
from cascade.engine.sampling import Sampling
from cascade.engine.scheduler import Scheduler
from cascade.engine.search import find_best_label
from cascade.engine.sequence import DecodeSequence, OnPromptLogits
from cascade.engine.stats import RunningStats, check_finite, numerical_noise
from cascade.engine.tasks import ExpertTask, read_task
from cascade.engine.threads import default_threads
from cascade.engine.ticket import Ticket
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.formats.gguf import TASKS_KEY
from cascade.records import Message, Token, Tool

IntArray = npt.NDArray[np.int32]
ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

MAX_SLOTS = 16  # sequences of one context
MAX_SLOTS_BYTES = 2**30  # memory of their cells; a large `n_ctx` leaves fewer slots
_END_TOKENS = 16  # of a prompt, that show what its template opened
PACKED_SLOTS, MIN_PACKED_CELLS = 64, 512  # of the pool that prompts of experts share


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How one model of a graph uses its file; the keys of `kind: llamacpp` that the engine knows.

    `n_threads` None is the engine's own choice. `task` is one of an expert's; `examples` (label → texts) make
    an embedding model a classifier. `reproducible` decodes each request by itself.
    """

    task: str | None = None
    system: str | None = None
    labels: Sequence[str] | str | None = None
    label_scoring: str = "exact"
    examples: Mapping[str, Sequence[str]] | None = None
    example_temperature: float = 0.05
    n_ctx: int = 4096
    n_threads: int | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    stop: Sequence[str] = ()
    top_logprobs: int = 0
    prompt_statistics: bool = False
    reproducible: bool = False


class EngineRequest(NamedTuple):
    """What a model is asked.

    Attributes:
        text: the request's text.
        message: the user message made from it.
        sample: number of the sample; it changes the seed.
        on_text: called with each piece of a generated text.
        messages: a whole conversation that replaces `message`.
        tools: tools that the model may call.
        grammar: GBNF that replaces the model's grammar.
        stop: stop strings in addition to the model's.
        stop_early: called after each token; ends the text by returning True.
        on_start: called when the request's turn has come.
        on_prompt_end: called with the end of the prompt's text, before anything is generated; empty where the
            file has no chat template.
    """

    text: str
    message: str
    sample: int = 0
    on_text: Callable[[str], object] | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    grammar: str | None = None
    stop: tuple[str, ...] = ()
    stop_early: StopEarly | None = None
    on_start: Callable[[], object] = lambda: None
    on_prompt_end: Callable[[str], object] = lambda _: None


class EngineAnswer(NamedTuple):
    """What a model answers.

    Attributes:
        text: the generated text, or the best label.
        tokens_in: tokens of the prompt.
        tokens_out: generated tokens.
        labels: label → probability, best first; None for free text and for the best label alone.
        tokens: tokens of a free text with their statistics.
        meta: what the trace records about the call.
    """

    text: str
    tokens_in: int
    tokens_out: int
    labels: dict[str, float] | None
    tokens: tuple[Token, ...]
    meta: dict[str, Any]


_AnswerSteps = Generator[Ticket | None, None, EngineAnswer]


class Session:
    """A loaded file with the settings of one model of a graph.

    Attributes:
        weights: the file.
        active_requests: number of requests being answered.
    """

    def __init__(
        self,
        weights: Weights,
        config: SessionOptions,
        labels: Sequence[str] | None,
        grammar: str | None = None,
        adapter: Path | None = None,
        prefix_dir: Path | None = None,
        learned: LearnedTask | None = None,
    ) -> None:
        """Prepare the prompt, the labels and the shape of the context.

        Args:
            weights: the loaded file.
            config: settings of the model.
            labels: the label set, if it has one.
            grammar: GBNF that constrains free text.
            adapter: a LoRA file.
            prefix_dir: a folder that keeps the evaluated prefix of all prompts.
            learned: the learned head that answers, if the file has one.

        Raises:
            ModelError: the file does not fit the settings.
        """
        self.weights = weights
        self.active_requests = 0
        self._config, self._grammar, self._adapter = config, grammar, adapter
        self._limit = min(config.n_ctx, weights.n_ctx_train)
        self._threads = config.n_threads or default_threads(weights.size)
        self._task: tuple[str, ExpertTask] | None = None
        self._tree: LabelTree | None = None
        self._classifier: ExampleClassifier | None = None
        self._head: HeadClassifier | None = None
        if config.examples is not None or learned is not None:
            queue = weights.embedding_queue(self._limit, self._threads)
            if learned is not None:
                self._head = HeadClassifier(weights, learned, queue)
            else:
                self._classifier = ExampleClassifier(
                    weights, config.examples or {}, config.example_temperature, queue
                )
            return
        if weights.encoder:
            raise ModelError(
                "it is an encoder, which turns texts into vectors and writes none; give 'examples', an "
                "expert that cascade learn made on it, or a text-generation model"
            )
        if config.task is not None or (config.labels is None and weights.metadata(TASKS_KEY) is not None):
            self._task = read_task(weights, config.task)
            self._tree = single_token_tree(self._task[1].labels, self._task[1].tokens)
        else:
            self._renderer = Renderer(weights)
            if labels is not None:
                # A tokenizer that adds no space before a text expects one between prompt and label.
                lead = "" if self._renderer.chat or weights.adds_space else " "
                self._tree = label_tree(weights, labels, lead=lead, limit=self._limit)
        self._check_model()
        self._prefix_files = None if prefix_dir is None else self._open_prefix_files(prefix_dir)

    def _open_prefix_files(self, folder: Path) -> PrefixFiles | None:
        """Return the saved prefixes in `folder`; None if this model cannot use them."""
        if self._task is not None or (self._tree is not None and self._tree.inner_nodes):
            return None
        # A saved state depends on the adapter.
        lora = "" if self._adapter is None else hashlib.sha256(self._adapter.read_bytes()).hexdigest()
        return PrefixFiles(folder, self.weights.path, f"flash{lora}")

    def answer(self, request: EngineRequest) -> _AnswerSteps:
        """Answer `request`; yields between decodes.

        Raises:
            ModelError: the prompt does not fit, or the model computes NaN.
        """
        self.active_requests += 1
        self.weights.active_requests += 1
        try:
            if self._head is not None:
                return (yield from self._ask_head(self._head, request))
            if self._classifier is not None:
                return (yield from self._classify(self._classifier, request))
            prompt = self._prompt(request)
            if self._prefix_files is not None:
                yield from self._prepare_prefix(self._prefix_files, request)
            if self._tree is None:
                return (yield from self._generate(prompt, request))
            score = self._score_tree if self._tree.inner_nodes else self._score_row
            return (yield from score(self._tree, prompt, request))
        finally:
            self.active_requests -= 1
            self.weights.active_requests -= 1

    def _classify(self, classifier: ExampleClassifier, request: EngineRequest) -> _AnswerSteps:
        request.on_start()
        tokens = classifier.tokenize(request.message)
        labels = yield from classifier.distribution(tokens)
        return EngineAnswer(next(iter(labels)), len(tokens), 0, labels, (), self._meta("embedding", "label"))

    def _ask_head(self, head: HeadClassifier, request: EngineRequest) -> _AnswerSteps:
        request.on_start()
        reply = yield from head.answer(request.text, alone=self._config.reproducible)
        reason = "fields" if reply.labels is None else "label"
        meta = self._meta("head", reason) | {"batch": reply.batch, "expert": reply.meta}
        return EngineAnswer(reply.text, reply.tokens, 0, reply.labels, (), meta)

    def _check_model(self) -> None:
        needs_branches = self._tree is not None and self._tree.inner_nodes
        if not self.weights.causal and (self._tree is None or needs_branches):
            raise ModelError("it is not a causal model: it can only score labels of one token")
        if needs_branches and not self.weights.can_branch:
            raise ModelError("it is a recurrent model: it can only score labels of one token")

    def _prompt(self, request: EngineRequest) -> IntArray:
        if self._task is not None:
            prompt = self._task[1].prompt(self.weights, self._task[0], request.text)
        else:
            prompt = self._renderer.render_conversation(
                self._messages(request), request.tools, self._limit, request.text
            )
        max_tokens = self._limit - (self._tree.depth if self._tree else 0)
        if not 0 < len(prompt) <= max_tokens:
            raise ModelError(
                f"prompt has {len(prompt)} tokens; expected 1 to {max_tokens} (n_ctx is "
                f"{self._config.n_ctx}, the model was made for {self.weights.n_ctx_train}); "
                "shorten it or send it to a larger model"
            )
        return prompt

    def _messages(self, request: EngineRequest) -> tuple[Message, ...]:
        messages = request.messages or (Message(role="user", content=request.message),)
        if self._config.system is None or any(message.role == "system" for message in messages):
            return messages
        return (Message(role="system", content=self._config.system), *messages)

    def _shape(self) -> ContextShape:
        config, tree, lora = self._config, self._tree, self._adapter
        flash = not config.reproducible
        if tree is not None and tree.inner_nodes:
            # All inner nodes get cells in addition, because the prompt may use the whole limit.
            cells = self._limit + len(tree.inner_nodes)
            branches = min(tree.branches, max_branches(cells, self.weights.n_vocab))
            return ContextShape(cells, self._threads, branches, flash=flash, adapter=lora)
        if config.reproducible:
            return ContextShape(self._limit, self._threads, adapter=lora)
        if self._task is not None or not self.weights.causal:
            cells = max(self._limit, MIN_PACKED_CELLS)
            # The experts' calibrations were fitted without flash attention, which shifts their probabilities.
            flash = self._task is None
            return ContextShape(
                cells, self._threads, slots=PACKED_SLOTS, packed=True, flash=flash, adapter=lora
            )
        affordable = MAX_SLOTS_BYTES // max(1, self._limit * self.weights.cell_bytes)
        slots = min(MAX_SLOTS, max(1, affordable))
        return ContextShape(self._limit, self._threads, slots=slots, flash=True, adapter=lora)

    def _score_row(self, tree: LabelTree, prompt: IntArray, request: EngineRequest) -> _AnswerSteps:
        """Score labels of one token each; the prompt is decoded together with others."""
        scheduler = self.weights.scheduler(self._shape())
        distribution: dict[str, float] = {}

        def read_row(row: FloatArray, _index: int) -> None:
            check_finite(row)
            distribution.update(_distribution(tree, scheduler, row))

        sequence = DecodeSequence(scheduler, prompt, read_row, on_start=request.on_start)
        yield from decode(scheduler, sequence)
        return self._label_answer(prompt, distribution, sequence.meta())

    def _score_tree(self, tree: LabelTree, prompt: IntArray, request: EngineRequest) -> _AnswerSteps:
        """Score labels of several tokens in a context of their own, one request after another."""
        context = self.weights.context(self._shape())
        while context.in_use:
            yield None
        context.in_use = True
        request.on_start()
        may_reuse = self.weights.can_rewind and not self._config.reproducible
        reused = common_prefix_length(prompt[:-1], context.held_prompt) if may_reuse else 0
        decode_meta = {"batch": 1} | ({"prefix_tokens": reused} if reused else {})
        context.held_prompt = prompt[:0]
        try:
            row = yield from prefill(context, prompt, reused)
            if self._config.label_scoring == "top1":
                best = yield from find_best_label(tree, context, len(prompt), row)
                context.held_prompt = prompt
                meta = self._meta("top1", "label") | decode_meta | {"top1": best._asdict()}
                return EngineAnswer(best.label, len(prompt), 1, None, (), meta)
            distribution = yield from tree.score(context, len(prompt), row)
            context.held_prompt = prompt
        finally:
            context.in_use = False
        return self._label_answer(prompt, distribution, decode_meta)

    def _label_answer(
        self, prompt: IntArray, labels: dict[str, float], decode_meta: dict[str, Any]
    ) -> EngineAnswer:
        meta = self._meta("labels", "label") | decode_meta
        return EngineAnswer(next(iter(labels)), len(prompt), 1, labels, (), meta)

    def _generate(self, prompt: IntArray, request: EngineRequest) -> _AnswerSteps:
        config = self._config
        free_cells = self._limit - len(prompt)
        sampling = Sampling(
            max_tokens=min(config.max_tokens, free_cells + 1),  # the last token needs no cell
            temperature=config.temperature,
            top_p=config.top_p,
            min_p=config.min_p,
            seed=config.seed + request.sample,
            grammar=request.grammar if request.grammar is not None else self._grammar,
            stop=(*config.stop, *request.stop),
        )
        scheduler = self.weights.scheduler(self._shape())
        request.on_prompt_end(self._end_of(prompt))
        prompt_stats = RunningStats()
        options = GenerateOptions(
            request.on_text,
            request.on_start,
            request.stop_early,
            on_prompt_logits=self._collect(prompt, prompt_stats) if config.prompt_statistics else None,
            top_logprobs=config.top_logprobs,
        )
        text = yield from generate(self.weights, scheduler, prompt, sampling, options)
        meta = self._meta("text", text.finish) | text.sequence.meta()
        meta["statistics"] = text.stats.summary()
        if prompt_stats.count:
            meta["prompt_statistics"] = prompt_stats.summary()
        if text.top_logprobs:
            meta["top_logprobs"] = text.top_logprobs
        if text.finish == "early_exit":
            meta |= text.early_exit_savings(sampling.max_tokens)
        return EngineAnswer(text.text, len(prompt), len(text.tokens), None, text.tokens, meta)

    def _prepare_prefix(
        self, files: PrefixFiles, request: EngineRequest
    ) -> Generator[Ticket | None, None, None]:
        """Put the prefix that all requests share into memory, from disk if it is there."""
        if request.messages or request.message.count(request.text) != 1:
            return  # the prefix is not clear from this request; the next one may show it
        self._prefix_files = None  # prepare it only once
        scheduler = self.weights.scheduler(self._shape())
        if scheduler.prefixes is None:
            return
        # The common prefix of two other texts contains nothing of this one.
        first, second = (
            self._prompt(request._replace(message=request.message.replace(request.text, other)))
            for other in ("0", "~")
        )
        shared = first[: common_prefix_length(first, second)]
        if len(shared) > scheduler.prefixes.min_tokens:
            yield from _load_prefix(files, scheduler, shared)

    def _end_of(self, prompt: IntArray) -> str:
        """Return the text of the last tokens of a prompt, if a template wrote them."""
        if not self._renderer.chat:
            return ""
        last = prompt[-_END_TOKENS:].tolist()
        return b"".join(self.weights.piece(token, special=True) for token in last).decode(errors="replace")

    def _collect(self, prompt: IntArray, stats: RunningStats) -> OnPromptLogits:
        """Return a callback that adds the statistics of each prompt token but the first to `stats`."""
        row_stats = self.weights.row_stats
        return lambda position, row: stats.add(row_stats(row, int(prompt[position + 1])))

    def _meta(self, decode: str, finish: str) -> dict[str, Any]:
        return {
            "n_threads": self._threads,
            "decode": decode,
            "mode": "reproducible" if self._config.reproducible else "fast",
            "noise": numerical_noise(
                reproducible=self._config.reproducible, tokens=1 + (self._tree.depth if self._tree else 0)
            ),
            "finish_reason": finish,
            "truncated": finish == "length",
        }


def _distribution(tree: LabelTree, scheduler: Scheduler, row: FloatArray) -> dict[str, float]:
    """Return the distribution over labels of one token each, which needs no further decode."""
    steps = tree.score(scheduler.context, 0, row)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            distribution: dict[str, float] = done.value
            return distribution


def _load_prefix(
    files: PrefixFiles, scheduler: Scheduler, tokens: IntArray
) -> Generator[Ticket | None, None, None]:
    """Load the state of `tokens` into the scheduler's memory; if it is not on disk, evaluate and write it."""
    prefixes = scheduler.prefixes
    state = files.load(tokens)
    if state is not None and prefixes is not None:
        prefixes.put(tokens, state)
        return
    states: list[ByteArray] = []
    sequence = DecodeSequence(
        scheduler, tokens, lambda _row, _index: states.append(scheduler.context.save(sequence.slot))
    )
    yield from decode(scheduler, sequence)
    files.save(tokens, states[0])
