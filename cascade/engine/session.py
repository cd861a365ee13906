"""How one configured model answers: as an expert's task, over a label set, or in free text.

Lives on the decode thread. `Session.answer` is the job that the worker steps through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.context import ContextShape, max_branches
from cascade.engine.embed import ExampleClassifier
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
from cascade.engine.weights import Weights
from cascade.engine.worker import Ticket
from cascade.errors import ModelError
from cascade.formats.gguf import TASKS_KEY
from cascade.records import Message, Token, Tool
from cascade.spec.schema import LlamaCppModel


class EngineRequest(NamedTuple):
    """The request as it came, the user message made of it, and which sample is asked for.

    `messages` is a whole conversation in place of `message`, with `tools` that the model may call.
    `grammar` (GBNF) and `stop` are this request's own; they replace and add to those of the model.
    `stop_early` may end the text; `begin` is called when it is the request's turn.
    """

    text: str
    message: str
    sample: int = 0
    emit: Callable[[str], object] | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    grammar: str | None = None
    stop: tuple[str, ...] = ()
    stop_early: StopEarly | None = None
    begin: Callable[[], object] = lambda: None


class EngineAnswer(NamedTuple):
    """A label with its distribution, or a text with its tokens."""

    text: str
    tokens_in: int
    tokens_out: int
    labels: dict[str, float] | None
    tokens: tuple[Token, ...]
    meta: dict[str, Any]


IntArray = npt.NDArray[np.int32]
ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Steps = Generator[Ticket | None, None, EngineAnswer]
SLOTS = 16  # sequences of one context
SLOTS_BYTES = 2**30  # and the memory of its cells: fewer slots where `n_ctx` is large
PACKED_SLOTS, PACKED_CELLS = 64, 512  # prompts of experts that share a pool


class Session:
    """A loaded file with the settings of one model of a graph.

    Attributes:
        weights: the file.
        users: answers at work.
    """

    def __init__(
        self,
        weights: Weights,
        config: LlamaCppModel,
        labels: Sequence[str] | None,
        grammar: str | None = None,
        adapter: Path | None = None,
        prefix_dir: Path | None = None,
    ) -> None:
        """Prepare the prompt, the labels and the size of the context.

        `grammar` (GBNF) binds free text, `adapter` is a LoRA file, and `prefix_dir` a folder that keeps the
        evaluated beginning of all prompts.

        Raises:
            ModelError: the file does not fit the settings.
        """
        self.weights = weights
        self.users = 0
        self._config, self._grammar, self._adapter = config, grammar, adapter
        self._limit = min(config.n_ctx, weights.n_ctx_train)
        self._threads = config.n_threads or default_threads(weights.size)
        self._task: tuple[str, ExpertTask] | None = None
        self._tree: LabelTree | None = None
        self._similar: ExampleClassifier | None = None
        if config.examples is not None:
            embedder = weights.embedder(self._limit, self._threads)
            self._similar = ExampleClassifier(weights, config.examples, config.example_temperature, embedder)
            return
        if config.task is not None or (config.labels is None and weights.metadata(TASKS_KEY) is not None):
            self._task = read_task(weights, config.task)
            self._tree = single_token_tree(self._task[1].labels, self._task[1].tokens)
        else:
            self._renderer = Renderer(weights)
            # A tokenizer that puts no space before a text itself expects one between prompt and label.
            self._lead = "" if self._renderer.chat or weights.spaced else " "
            if labels is not None:
                self._tree = label_tree(weights, labels, lead=self._lead, limit=self._limit)
        self._check()
        self._files: PrefixFiles | None = None
        if prefix_dir is not None:
            # An adapter changes what is kept: its file is part of what a saved prefix belongs to.
            lora = "" if adapter is None else hashlib.sha256(adapter.read_bytes()).hexdigest()
            self._files = PrefixFiles(prefix_dir, weights.path, f"flash{lora}")

    def answer(self, question: EngineRequest) -> Steps:
        """Answer `question`; yields between decodes.

        Raises:
            ModelError: the prompt does not fit, or the model computes NaN.
        """
        self.users += 1
        self.weights.at_work += 1
        try:
            if self._similar is not None:
                return (yield from self._compare(self._similar, question))
            prompt = self._prompt(question)
            if self._files is not None and self._task is None and not (self._tree and self._tree.inner):
                yield from self._fetch(self._files, question)
            if self._tree is None:
                return (yield from self._write(prompt, question))
            score = self._score_tree if self._tree.inner else self._score_row
            return (yield from score(self._tree, prompt, question))
        finally:
            self.users -= 1
            self.weights.at_work -= 1

    def _compare(self, similar: ExampleClassifier, question: EngineRequest) -> Steps:
        question.begin()
        tokens = similar.tokens(question.message)
        labels = yield from similar.distribution(tokens)
        return EngineAnswer(next(iter(labels)), len(tokens), 0, labels, (), self._meta("embedding", "label"))

    def _check(self) -> None:
        long = self._tree is not None and self._tree.inner
        if not self.weights.causal and (self._tree is None or long):
            raise ModelError("it is not a causal model: it can only score labels of one token")
        if long and not self.weights.branching:
            raise ModelError("it is a recurrent model: it can only score labels of one token")

    def _prompt(self, question: EngineRequest) -> IntArray:
        if self._task is not None:
            prompt = self._task[1].prompt(self.weights, self._task[0], question.text)
        else:
            prompt = self._renderer.conversation(self._messages(question), question.tools, self._limit)
        room = self._limit - (self._tree.depth if self._tree else 0)
        if not 0 < len(prompt) <= room:
            raise ModelError(
                f"prompt has {len(prompt)} tokens; expected 1 to {room} (n_ctx is "
                f"{self._config.n_ctx}, the model was made for {self.weights.n_ctx_train}); "
                "shorten it or send it to a larger model"
            )
        return prompt

    def _messages(self, question: EngineRequest) -> tuple[Message, ...]:
        messages = question.messages or (Message(role="user", content=question.message),)
        if self._config.system is None or any(message.role == "system" for message in messages):
            return messages
        return (Message(role="system", content=self._config.system), *messages)

    def _shape(self) -> ContextShape:
        config, tree, lora = self._config, self._tree, self._adapter
        flash = not config.reproducible
        if tree is not None and tree.inner:
            # The cells of all inner nodes come on top: the prompt may use the whole limit.
            cells = self._limit + len(tree.inner)
            branches = min(tree.branches, max_branches(cells, self.weights.n_vocab))
            return ContextShape(cells, self._threads, branches, flash=flash, adapter=lora)
        if config.reproducible:
            return ContextShape(self._limit, self._threads, adapter=lora)
        if self._task is not None or not self.weights.causal:
            cells = max(self._limit, PACKED_CELLS)
            # The experts' calibrations were fitted without flash attention, which moves their probabilities.
            flash = self._task is None
            return ContextShape(
                cells, self._threads, slots=PACKED_SLOTS, packed=True, flash=flash, adapter=lora
            )
        affordable = SLOTS_BYTES // max(1, self._limit * self.weights.cell_bytes)
        slots = min(SLOTS, max(1, affordable))
        return ContextShape(self._limit, self._threads, slots=slots, flash=True, adapter=lora)

    def _score_row(self, tree: LabelTree, prompt: IntArray, question: EngineRequest) -> Steps:
        """Score labels of one token: the prompt is decoded together with others."""
        scheduler = self.weights.scheduler(self._shape())
        found: dict[str, float] = {}

        def take(row: FloatArray, _index: int) -> None:
            check_finite(row)
            found.update(_distribution(tree, scheduler, row))

        sequence = yield from decode(scheduler, DecodeSequence(scheduler, prompt, take, begin=question.begin))
        return self._labelled(prompt, found, sequence.meta())

    def _score_tree(self, tree: LabelTree, prompt: IntArray, question: EngineRequest) -> Steps:
        """Score labels of several tokens in a context of its own, one request after another."""
        context = self.weights.context(self._shape())
        while context.lent:
            yield None
        context.lent = True
        question.begin()
        again = self.weights.rewinds and not self._config.reproducible
        reused = common_prefix_length(prompt[:-1], context.held) if again else 0
        decoded = {"batch": 1} | ({"prefix_tokens": reused} if reused else {})
        context.held = prompt[:0]
        try:
            row = yield from prefill(context, prompt, reused)
            if self._config.label_scoring == "top1":
                found = yield from find_best_label(tree, context, len(prompt), row)
                context.held = prompt
                meta = self._meta("top1", "label") | decoded | {"top1": found._asdict()}
                return EngineAnswer(found.label, len(prompt), 1, None, (), meta)
            distribution = yield from tree.score(context, len(prompt), row)
            context.held = prompt
        finally:
            context.lent = False
        return self._labelled(prompt, distribution, decoded)

    def _labelled(self, prompt: IntArray, labels: dict[str, float], decoded: dict[str, Any]) -> EngineAnswer:
        meta = self._meta("labels", "label") | decoded
        return EngineAnswer(next(iter(labels)), len(prompt), 1, labels, (), meta)

    def _write(self, prompt: IntArray, question: EngineRequest) -> Steps:
        config = self._config
        room = self._limit - len(prompt) + 1  # the last token needs no cell
        sampling = Sampling(
            max_tokens=min(config.max_tokens, room),
            temperature=config.temperature,
            top_p=config.top_p,
            min_p=config.min_p,
            seed=config.seed + question.sample,
            grammar=question.grammar if question.grammar is not None else self._grammar,
            stop=(*config.stop, *question.stop),
        )
        scheduler = self.weights.scheduler(self._shape())
        read = RunningStats()
        wishes = GenerateOptions(
            question.emit,
            question.begin,
            question.stop_early,
            watch=self._watch(prompt, read) if config.prompt_statistics else None,
            top=config.top_logprobs,
        )
        text = yield from generate(self.weights, scheduler, prompt, sampling, wishes)
        meta = self._meta("text", text.finish) | text.sequence.meta()
        meta["statistics"] = text.running.summary()
        if read.count:
            meta["prompt_statistics"] = read.summary()
        if text.top:
            meta["top_logprobs"] = text.top
        if text.finish == "early_exit":
            meta |= text.spared(sampling.max_tokens)
        return EngineAnswer(text.text, len(prompt), len(text.tokens), None, text.tokens, meta)

    def _fetch(self, files: PrefixFiles, question: EngineRequest) -> Generator[Ticket | None, None, None]:
        """Have what comes before every request's text in memory, from disk if it is there."""
        if question.messages or question.message.count(question.text) != 1:
            return  # the next request may tell what comes before its text
        self._files = None  # once
        scheduler = self.weights.scheduler(self._shape())
        if scheduler.prefixes is None:
            return
        # What two other texts have in common holds nothing of this one.
        first, second = (
            self._prompt(question._replace(message=question.message.replace(question.text, other)))
            for other in ("0", "~")
        )
        shared = first[: common_prefix_length(first, second)]
        if len(shared) > scheduler.prefixes.shortest:
            yield from _load_prefix(files, scheduler, shared)

    def _watch(self, prompt: IntArray, read: RunningStats) -> OnPromptLogits:
        measure = self.weights.measure
        return lambda position, row: read.add(measure(row, int(prompt[position + 1])))

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
    """Return the distribution over labels of one token, which needs no decode."""
    steps = tree.score(scheduler.context, 0, row)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: dict[str, float] = done.value
            return found


def _load_prefix(
    files: PrefixFiles, scheduler: Scheduler, tokens: IntArray
) -> Generator[Ticket | None, None, None]:
    """Have the state of `tokens` in the scheduler's memory: from disk, else evaluated and written there."""
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
