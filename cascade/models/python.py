"""Models of kind `python`: a function of yours, or a fitted scikit-learn classifier."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cascade.config.references import existing_file, file_sha256
from cascade.errors import ConfigError, ModelError
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.function import Caller, find_source, function_sha256, load_function, parse_reference
from cascade.models.prompted import attempt, checked_labels, label_accesses, resolve_labels
from cascade.spec.kinds import Access, Evidence, ModelFacts, ModelSettings, Problem, settings_sha256
from cascade.spec.parts import Price

_TOLERANCE = 1e-3  # how far a distribution's sum may be from 1


class PythonSettings(ModelSettings):
    """A Python function as a model: text in, text or label distribution out.

    The function runs with the rights of this process. A file that names one is code: check where it is from.
    """

    kind: Literal["python"]
    call: str
    """`package.module:function`, or `file.py:function` for a file beside the graph; may be a coroutine
    function, or an object with `predict_proba` and `classes_`."""
    labels: list[str] | str | None = None
    """The closed set of answers, as a list; `bundled:NAME#TASK` or `FILE.gguf#TASK`, alone or in it, means
    the labels of an expert's task."""
    files: list[str] = Field(default_factory=list)
    """Files beside the graph that decide its answers: a calibration is stale when one of them changes."""
    price_per_call: float = Field(0.0, ge=0.0)
    """US dollars that one call costs."""
    local: bool = False
    """True only if the function sends nothing off this machine: local-only requests may go there."""

    def resolve(self, base: Path) -> ModelFacts:
        """Return the labels.

        Raises:
            ConfigError: they are of an unknown expert or task.
        """
        return ModelFacts(resolve_labels(self.labels, base))

    def inspect(self, base: Path) -> tuple[ModelFacts, list[Problem]]:
        """Check the labels, and that the function and the files exist; nothing is imported."""
        problems: list[Problem] = []
        labels = checked_labels(lambda: resolve_labels(self.labels, base), self.labels, problems)
        attempt("call", lambda: find_source(parse_reference(self.call), base), problems)
        for file in self.files:
            attempt("files", lambda file=file: existing_file(file, base, "file"), problems)  # type: ignore[misc]
        return ModelFacts(labels, unknown=bool(problems)), problems

    def accesses(self) -> Iterator[Access]:
        """The module runs when the graph is loaded, and the function with each request."""
        yield Access("runs code", self.call)
        yield from (Access("reads file", file) for file in self.files)
        yield from label_accesses(self.labels)

    def fingerprint(self, base: Path, facts: ModelFacts) -> str:
        """Hash the function's source, `files` and the labels."""
        files = {file: file_sha256(existing_file(file, base, "file")) for file in self.files}
        source = function_sha256(parse_reference(self.call), base)
        return settings_sha256({"call": self.call, "source": source, "files": files, "labels": facts.labels})

    def build(self, name: str, base: Path, facts: ModelFacts) -> Python:
        """Return the model; this imports the function.

        Raises:
            ConfigError: the function is missing, cannot be imported or called, or has other labels.
        """
        return Python(name, self, load_function(parse_reference(self.call), base), facts)

    def token_price(self) -> Price:
        """Return the price of a call as that of a million tokens, of which a call counts as one."""
        return Price(input=0.0, output=self.price_per_call * 1e6)

    def answer_tokens(self, facts: ModelFacts) -> int:
        """Return 1: a call is paid as a whole."""
        return 1

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """A function reports a label distribution if it has labels, and no tokens."""
        if evidence in ("tokens", "entropy"):
            return f"model {name!r} is a function and reports no token log-probabilities"
        if facts.labels is None and not facts.unknown:
            return f"model {name!r} has no labels, so there is no distribution over them"
        return None


class Python:
    """Calls a function. Has the shape of `base.Model`.

    Raises:
        ConfigError: the object is neither callable nor a classifier of the model's labels.
    """

    def __init__(self, name: str, config: PythonSettings, target: Any, facts: ModelFacts) -> None:
        self.name = name
        self.tier = config.tier
        self.local = config.local
        self.price: Price | None = config.token_price()
        self.timeout = config.timeout
        self.closed = facts.labels is not None
        self._call_name = config.call
        self._labels = facts.labels
        function = _classifier(name, target, facts.labels) if hasattr(target, "predict_proba") else target
        if not callable(function):
            kind = type(target).__name__
            raise ConfigError(
                f"models.{name}.call: {config.call} is a {kind}; expected a function of one text"
            )
        self._wants_request = _wants_request(function)
        self._caller = Caller(function, config.call)

    def unavailable(self) -> str | None:
        """Return None: the function was found when the graph was loaded."""
        return None

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return one paid unit, whatever the prompt."""
        return 0, 1

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Call the function with the text, or with the whole `Request` if its parameter is called `request`.

        Raises:
            ModelError: the function raised, or returned neither a text nor a distribution over the labels.
        """
        try:
            value = await self._caller.call(prompt.request if self._wants_request else prompt.text)
        except ModelError:
            raise
        except Exception as error:
            raise self._failed(f"raised {type(error).__name__}: {error}; see {self._call_name}") from error
        reply = self._reply(value)
        if on_text is not None:
            on_text(reply.text)
        return reply

    def _reply(self, value: Any) -> Reply:
        billed = self.worst_case(Prompt(""))
        if isinstance(value, Mapping):
            labels = self._distribution(value)
            return Reply(next(iter(labels)), labels=labels, billed=billed)
        if not isinstance(value, str):
            kind = type(value).__name__
            raise self._failed(f"returned a {kind}; expected a text, or a mapping of labels to probabilities")
        if self._labels is not None and value not in self._labels:
            raise self._failed(f"returned {value!r:.60}, which is not one of its {len(self._labels)} labels")
        return Reply(value, billed=billed)

    def _distribution(self, value: Mapping[Any, Any]) -> dict[str, float]:
        """Return a distribution, best label first; labels that it leaves out have probability 0."""
        if self._labels is None:
            raise self._failed("returned a label distribution and the model has no labels; add its 'labels'")
        unknown = [label for label in value if label not in self._labels]
        if unknown:
            raise self._failed(f"returned the label {unknown[0]!r:.60}, which is not in its 'labels'")
        try:
            shares = {label: float(value.get(label, 0.0)) for label in self._labels}
        except (TypeError, ValueError) as error:
            raise self._failed(f"returned a probability that is no number: {error}") from error
        total = math.fsum(shares.values())
        if not (
            all(0.0 <= share <= 1.0 + _TOLERANCE for share in shares.values())
            and abs(total - 1.0) <= _TOLERANCE
        ):
            raise self._failed(
                f"returned probabilities that sum to {total:.4g}; expected numbers from 0 to 1, sum 1"
            )
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def _failed(self, reason: str) -> ModelError:
        return ModelError(f"model {self.name!r}: {self._call_name} {reason}", self.worst_case(Prompt("")))

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""


def _wants_request(function: Any) -> bool:
    try:
        parameters: Iterator[str] = iter(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return next(parameters, None) == "request"


def _classifier(name: str, target: Any, labels: tuple[str, ...] | None) -> Any:
    """Return a function of one text that asks a fitted classifier, such as a scikit-learn pipeline.

    Raises:
        ConfigError: it is not fitted, or its classes are not the model's labels.
    """
    classes = getattr(target, "classes_", None)
    if classes is None:
        raise ConfigError(f"models.{name}.call: the classifier has no classes_; fit it before it is loaded")
    known = [str(label) for label in classes]
    if labels is None or set(known) != set(labels):
        shown = ", ".join(known[:20])
        raise ConfigError(
            f"models.{name}.labels: the classifier's classes are {shown}; give these as 'labels'"
        )

    def predict(text: str) -> dict[str, float]:
        return dict(zip(known, map(float, target.predict_proba([text])[0]), strict=True))

    return predict
