"""The kinds of models, confidences and gates that are installed, found by entry point on first use.

A package registers a kind in its pyproject.toml, as this one does:

    [project.entry-points."cascade.models"]
    regex = "my_package:RegexModel"
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from importlib.metadata import EntryPoint, entry_points
from operator import or_
from typing import Annotated, Any, Generic, TypeVar, get_args

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from cascade.errors import ConfigError
from cascade.spec.kinds import ConfidenceSettings, GateSettings, ModelSettings

T = TypeVar("T", ModelSettings, ConfidenceSettings, GateSettings)


class Registry(Generic[T]):
    """The kinds of one entry-point group, and the pydantic type that is any of them.

    Args:
        group: the entry-point group.
        base: the class that every kind's settings extend.
        key: the key of a graph file that names the kind.
    """

    def __init__(self, group: str, base: type[T], key: str) -> None:
        self.group, self.key = group, key
        self.base: type[T] = base
        self._kinds: dict[str, type[T]] | None = None

    def kinds(self) -> dict[str, type[T]]:
        """Return name → settings of every kind, this package's first.

        Raises:
            ConfigError: an entry point cannot be loaded or is not a kind, or none is installed.
        """
        if self._kinds is None:
            self._kinds = self._load(entry_points(group=self.group))
        return self._kinds

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        union: Any = reduce(or_, self.kinds().values())
        return handler.generate_schema(Annotated[union, Field(discriminator=self.key)])

    def _load(self, points: Iterable[EntryPoint]) -> dict[str, type[T]]:
        registered: dict[str, EntryPoint] = {}
        for point in sorted(points, key=lambda point: not point.value.startswith("cascade.")):
            # The same kind twice is left over from an older installation, and harmless.
            if registered.setdefault(point.name, point).value != point.value:
                raise self._error(point, "another package has a kind of this name; uninstall one of them")
        if not registered:
            text = f"no kinds are registered as entry points {self.group!r}: the installation is incomplete"
            raise ConfigError(f"{text}; install the package again (in a checkout: pip install -e .)")
        return {name: self._kind(point) for name, point in registered.items()}

    def _kind(self, point: EntryPoint) -> type[T]:
        try:
            kind = point.load()
        except Exception as error:
            why = f"cannot be loaded: {type(error).__name__}: {error}"
            raise self._error(point, f"{why}; repair the package, or uninstall it") from error
        if not (isinstance(kind, type) and issubclass(kind, self.base)):
            raise self._error(point, f"is not a {self.base.__name__}; repair the package, or uninstall it")
        settings: type[T] = kind
        names = get_args(settings.model_fields[self.key].annotation)
        if names != (point.name,):
            raise self._error(point, f"declares no '{self.key}: Literal[{point.name!r}]'; repair the package")
        return kind

    def _error(self, point: EntryPoint, text: str) -> ConfigError:
        package = f" of {point.dist.name}" if point.dist is not None else ""
        return ConfigError(f"entry point {point.name!r} ({self.group}){package}: {point.value} {text}")


MODELS = Registry("cascade.models", ModelSettings, "kind")
CONFIDENCES = Registry("cascade.confidence", ConfidenceSettings, "by")
GATES = Registry("cascade.gates", GateSettings, "by")
