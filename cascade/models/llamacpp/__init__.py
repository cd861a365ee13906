"""Models of kind `llamacpp`: GGUF files that llama.cpp runs on this machine's CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from cascade.config.messages import suggest
from cascade.config.references import existing_file, file_sha256, gguf_tasks, local_model_path, model_sha256
from cascade.errors import ConfigError, ModelError
from cascade.extras import require
from cascade.formats.adapter import check_adapter_of
from cascade.formats.expert_file import is_encoder, read_expert
from cascade.formats.gbnf import MAX_BYTES, check_grammar
from cascade.formats.gguf import TEMPLATE_KEY, read_metadata
from cascade.formats.gguf_header import check_file
from cascade.formats.gguf_parts import file_bytes
from cascade.formats.json_grammar import schema_grammar
from cascade.models.prompted import Prompted, attempt, label_problems
from cascade.spec.kinds import Access, Evidence, ModelFacts, Problem, Weights, settings_sha256
from cascade.spec.parts import Price

if TYPE_CHECKING:
    from cascade.models.base import Model

_ANSWER_KEYS = ("min_p", "label_scoring", "examples", "example_temperature")
_FILE_KEYS = ("grammar", "output_schema", "lora")


class LlamaCppSettings(Prompted):
    """A GGUF model, run by llama.cpp in this process on the CPU."""

    kind: Literal["llamacpp"]
    path: str
    """A file beside the graph, `bundled:NAME`, or `hf:OWNER/REPO/FILE.gguf`; the first of several parts."""
    task: str | None = None
    """Task of a bundled expert; its labels and prompt are in the GGUF. Required if it has several."""
    lora: str | None = None
    """A LoRA adapter for this model: a GGUF file beside the graph."""
    min_p: float = Field(0.0, ge=0.0, lt=1.0)
    """Leave out tokens whose probability is less than this share of the best one's."""
    grammar: str | None = None
    """GBNF grammar that an answer must follow: a file beside the graph, or the text itself."""
    output_schema: dict[str, Any] | str | None = None
    """JSON Schema that an answer must satisfy: a file beside the graph, or the schema itself."""
    examples: dict[str, Annotated[list[str], Field(min_length=1)]] | None = None
    """Label → example texts, for an embedding model: the label whose examples are most similar wins."""
    example_temperature: float = Field(0.05, gt=0.0, le=2.0)
    """Softmax temperature that turns cosine similarities to the examples into probabilities."""
    label_scoring: Literal["exact", "top1"] = "exact"
    """exact: the distribution over all labels; top1: the best label with a lower bound of its probability."""
    n_ctx: int = Field(4096, ge=16)
    """Context length in tokens, prompt and answer together."""
    n_threads: int | None = Field(None, ge=1)
    """Maximum number of threads of one decode; default: one less than the machine's cores, at least one."""
    isolate: Literal["none", "process"] = "none"
    """process: run it in a process of its own, so that a crash of llama.cpp is one failed call."""
    memory_mb: int | None = Field(None, ge=1024)
    """Maximum address space of that process in MiB; it reserves about 1200 before it loads the model."""
    top_logprobs: int = Field(0, ge=0, le=20)
    """How many of the most probable tokens to keep in the trace for each generated token."""
    prefix_dir: str | None = None
    """Folder beside the graph that caches the evaluated prompt up to the request's text."""
    prompt_statistics: bool = False
    """Measure the prompt's tokens too; then no prefix of another prompt is reused."""
    reproducible: bool = False
    """Decode each request alone and without flash attention: slower, but independent of other requests."""
    price: Price = Price(input=0.0, output=0.0)
    """What the tokens cost you; local tokens are free unless you say otherwise."""
    local: Literal[True] = True
    """A GGUF model never sends anything anywhere."""

    def resolve(self, base: Path) -> ModelFacts:
        """Return labels and grammar; the labels of a hub file that is not downloaded yet are unknown.

        Raises:
            ConfigError: a file is missing or broken, or the settings contradict each other.
        """
        labels = self.resolve_labels(base)
        grammar = self.resolve_grammar(base)
        if self.lora is not None:
            existing_file(self.lora, base, "adapter")
        unknown = labels is None and local_model_path(self.path, base) is None
        return ModelFacts(labels, unknown, grammar, self._is_learned(base))

    def accesses(self) -> Iterator[Access]:
        """The weights and what is beside them; a hub file is downloaded when the model is first used."""
        if self.path.startswith("hf:"):
            yield Access("downloads", self.path)
        else:
            yield Access("reads file", self.path)
        grammar = self.grammar if self.grammar is not None and "::=" not in self.grammar else None
        schema = self.output_schema if isinstance(self.output_schema, str) else None
        for file in (self.lora, grammar, schema):
            if file is not None:
                yield Access("reads file", file)
        if self.prefix_dir is not None:
            yield Access("writes folder", self.prefix_dir, "text of prompts, evaluated")
        yield from super().accesses()

    def resolve_labels(self, base: Path) -> tuple[str, ...] | None:
        """Return the labels that are given, those of the examples, or those of the file's task.

        Raises:
            ConfigError: the labels are of an unknown expert or task, or the model's file is broken.
        """
        if self.labels is not None:
            return super().resolve_labels(base)
        if self.examples is not None:
            return tuple(self.examples)
        tasks = self._tasks(base) or {}
        return (tasks[self._pick_task(tasks)] or None) if tasks else None

    def resolve_grammar(self, base: Path) -> str | None:
        """Return the GBNF grammar of the model's answers, or None if they are free.

        Raises:
            ConfigError: a file is missing or unreadable, the grammar or the schema cannot be used, or both
                are given.
        """
        if self.grammar is not None and self.output_schema is not None:
            raise ConfigError("'grammar' and 'output_schema' exclude each other; drop one")
        if self.grammar is not None:
            text = self.grammar if "::=" in self.grammar else _read_text(self.grammar, base, "grammar")
            check_grammar(text)
            return text
        if self.output_schema is None:
            return None
        schema: object = self.output_schema
        if isinstance(schema, str):
            try:
                schema = json.loads(_read_text(schema, base, "JSON Schema"))
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"JSON Schema {self.output_schema!r} is not JSON: {error}") from error
        return schema_grammar(schema)

    def inspect(self, base: Path) -> tuple[ModelFacts, list[Problem]]:
        """Read the file's header, its labels, the grammar and the adapter; see that they fit together."""
        problems = list(self._check_file(base))
        if problems:
            return ModelFacts(unknown=True), problems
        labels = attempt("labels", partial(self.resolve_labels, base), problems)
        unknown = labels is None and (bool(problems) or local_model_path(self.path, base) is None)
        facts = ModelFacts(labels, unknown)
        problems += [*label_problems(labels, self.labels), *self.check_prompt(facts)]
        if self.system is not None and (text := self._unseen_system(base)):
            problems.append(Problem(("system",), text))
        problems += self._check_examples()
        problems += self._check_template(base, facts)
        key = "grammar" if self.grammar is not None else "output_schema"
        if getattr(self, key) is not None and labels is not None:
            text = f"{key!r} cannot stand here: the model only chooses among its labels; drop one"
            problems.append(Problem((key,), text))
        grammar = attempt(key, partial(self.resolve_grammar, base), problems)
        attempt("lora", partial(self._check_adapter, base), problems)
        attempt("prefix_dir", partial(self._check_prefix_dir, base), problems)
        learned = not problems and self._is_learned(base)
        return ModelFacts(labels, unknown or bool(problems), grammar, learned), problems

    def fingerprint(self, base: Path, facts: ModelFacts) -> str:
        """Hash the file, its task, the prompt, the labels, and what is set of sampling and adapter.

        Raises:
            ConfigError: a file is missing, broken, or not downloaded yet.
        """
        parts = self.answer_settings(facts, *_ANSWER_KEYS)
        for key in _FILE_KEYS:
            value = getattr(self, key)
            if value is not None:
                is_file = isinstance(value, str) and "::=" not in value
                parts[key] = file_sha256(existing_file(value, base, key)) if is_file else value
        path = local_model_path(self.path, base)
        if path is None:
            text = f"{self.path!r} is not downloaded yet, so its hash is unknown; run the graph once"
            raise ConfigError(text)
        return settings_sha256(parts | {"file": model_sha256(path), "task": self.task})

    def build(self, name: str, base: Path, facts: ModelFacts) -> Model:
        """Return the model, in this process or in one of its own; the first call loads the file.

        Raises:
            ConfigError: the extra `local` is not installed, or `task` and `labels` are both given.
        """
        require("llama_cpp", f"model {name!r} (kind llamacpp)", "local")
        if self.isolate == "process":
            from cascade.models.llamacpp.isolated import Isolated

            return Isolated(name, self, base, facts)
        from cascade.models.llamacpp.model import LlamaCpp

        return LlamaCpp(name, self, base, facts)

    def token_price(self) -> Price | None:
        """Return `price`."""
        return self.price

    def answer_tokens(self, facts: ModelFacts) -> int:
        """Return 1 for a label, else `max_tokens`."""
        return 1 if facts.labels or facts.unknown else self.max_tokens

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """A model with labels reports their distribution, another one its tokens."""
        if evidence in ("tokens", "entropy"):
            scores = bool(facts.labels)
            return f"model {name!r} scores labels and writes no tokens; use 'labels'" if scores else None
        if facts.labels is None and not facts.unknown:
            return f"model {name!r} has no labels, so there is no distribution over them"
        if self.label_scoring == "top1" and evidence == "labels":
            return f"model {name!r} has 'label_scoring: top1', which finds the best label only; use exact"
        return None

    def repeats(self, facts: ModelFacts) -> str | None:
        """Scoring labels takes no chance."""
        if facts.labels:
            return "it scores its labels, which takes no chance; ask once"
        return super().repeats(facts)

    def local_file(self, base: Path) -> str | None:
        """Return the file with its size, and its adapter."""
        path = None if self.path.startswith("hf:") else local_model_path(self.path, base)
        size = "on the hub, or in its cache" if path is None else f"{file_bytes(path) / 2**20:.1f} MiB"
        return f"{self.path}, {size}" + ("" if self.lora is None else f", adapter {self.lora}")

    def weights(self, base: Path) -> Weights | None:
        """Return the file, for a hub file that in its cache, and the task."""
        path = local_model_path(self.path, base)
        return None if path is None else Weights(path, self.task)

    def file_is_here(self, base: Path) -> bool:
        """Return whether the file is on this machine, for a hub file in its cache."""
        return self.weights(base) is not None

    def _tasks(self, base: Path) -> dict[str, tuple[str, ...]] | None:
        """Return the file's tasks with their labels; None for a hub file that is not downloaded yet."""
        path = local_model_path(self.path, base)
        return None if path is None else gguf_tasks(path)

    def _is_learned(self, base: Path) -> bool:
        """Return whether a learned head answers."""
        if self.labels is not None or self.examples is not None:  # no task answers then
            return False
        path = local_model_path(self.path, base)
        return path is not None and bool(gguf_tasks(path)) and read_expert(path) is not None

    def _pick_task(self, tasks: dict[str, tuple[str, ...]]) -> str:
        if self.task is None and len(tasks) == 1:
            return next(iter(tasks))
        if self.task is None:
            raise ConfigError(f"{self.path!r} has several tasks; give 'task', one of: {', '.join(tasks)}")
        if self.task not in tasks:
            raise ConfigError(f"unknown task {self.task!r} of {self.path!r}; {suggest(self.task, tasks)}")
        return self.task

    def _check_file(self, base: Path) -> Iterator[Problem]:
        if self.memory_mb is not None and self.isolate != "process":
            yield Problem(("memory_mb",), "'memory_mb' limits a process of its own; add 'isolate: process'")
        try:
            tasks = self._tasks(base)
            if (path := local_model_path(self.path, base)) is not None:
                check_file(path)
                yield from self._check_encoder(path)
        except (ConfigError, ModelError) as error:
            named = isinstance(error, ConfigError)  # its text names the file
            yield Problem(("path",), str(error) if named else f"{self.path!r}: {error}")
            return
        if tasks is not None:
            yield from self._check_tasks(tasks)

    def _check_encoder(self, path: Path) -> Iterator[Problem]:
        """An encoder only turns texts into vectors: something must make answers of them."""
        if self.examples is not None or not is_encoder(path):
            return
        if not gguf_tasks(path):
            text = f"{self.path!r} is an encoder, which turns texts into vectors and writes none"
            fix = "give 'examples', an expert that cascade learn made on it, or a text-generation model"
            yield Problem(("path",), f"{text}; {fix}")
        for key in ("lora", "prefix_dir", "prompt_statistics"):
            if getattr(self, key):
                text = f"{key!r} has no effect beside a learned head, which reads the text's vector; drop it"
                yield Problem((key,), text)

    def _check_tasks(self, tasks: dict[str, tuple[str, ...]]) -> Iterator[Problem]:
        if not tasks:
            if self.task is not None:
                text = f"{self.task!r}: {self.path!r} has no tasks; give 'labels' and 'prompt' instead"
                yield Problem(("task",), text)
            return
        try:
            self._pick_task(tasks)
        except ConfigError as error:
            yield Problem(("task",) if self.task is not None else (), str(error))
        for key in ("labels", "prompt", "system", "examples"):
            if getattr(self, key) is not None:
                yield Problem((key,), f"{key!r} cannot stand here: an expert's task has its own; remove it")

    def _check_examples(self) -> Iterator[Problem]:
        if self.examples is None:
            return
        if self.labels is not None:
            text = "'examples' and 'labels' exclude each other; examples name the labels"
            yield Problem(("examples",), text)
        for label, texts in self.examples.items():
            for index, text in enumerate(texts):
                if not text.strip():
                    yield Problem(("examples", label, index), f"example {text!r} is blank; give a text")
        if self.lora is not None:
            text = "'lora' cannot stand beside 'examples'; merge it into the embedding model"
            yield Problem(("lora",), text)

    def _unseen_system(self, base: Path) -> str:
        """Return why the model would never see its system message; empty if it does, or that is unknown."""
        if self.examples is not None:
            return (
                "'system' has no effect beside 'examples', which are compared with the text; "
                "put it into 'prompt'"
            )
        path = local_model_path(self.path, base)
        if path is None or read_metadata(path, {TEMPLATE_KEY}):
            return ""
        return f"{self.path!r} has no chat template for a system message; put that text into 'prompt'"

    def _check_template(self, base: Path, facts: ModelFacts) -> Iterator[Problem]:
        """Render the file's chat template with the graph's prompts, where it reads them."""
        path = local_model_path(self.path, base)
        if path is None or self.examples is not None or gguf_tasks(path):
            return
        try:
            from cascade.models.llamacpp.templates import chat_template, template_problems

            template = chat_template(path)
        except ImportError:  # without the extra `local` nothing can run anyway
            return
        except ModelError as error:
            yield Problem(("path",), f"{self.path!r}: {error}")
            return
        for text in () if template is None else template_problems(template, self, facts.labels):
            yield Problem(("path",), f"{self.path!r}: {text}")

    def _check_prefix_dir(self, base: Path) -> None:
        if self.prefix_dir is None:
            return
        for key in ("task", "examples", "reproducible", "prompt_statistics"):
            if getattr(self, key):
                raise ConfigError(
                    f"'prefix_dir' has no effect beside {key!r}, which takes nothing over; drop one"
                )
        folder = base / self.prefix_dir
        if folder.exists() and not folder.is_dir():
            raise ConfigError(
                f"{self.prefix_dir!r} is not a folder; give one, which is made if it is missing"
            )

    def _check_adapter(self, base: Path) -> None:
        if self.lora is None:
            return
        adapter, path = existing_file(self.lora, base, "adapter"), local_model_path(self.path, base)
        if path is not None:  # else it is not downloaded yet
            check_adapter_of(adapter, path)


def _read_text(path: str, base: Path, what: str) -> str:
    file = existing_file(path, base, what)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{what} {path!r} has {file.stat().st_size} bytes; at most {MAX_BYTES} are taken"
            )
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path!r} cannot be read: {error}") from error
