"""Python functions that a graph file names: found without running them, loaded, and called in a thread."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cascade.config.references import existing_file, file_sha256
from cascade.errors import ConfigError

MAX_STUCK = 32  # threads of one function that may run on after their time; then it is not called any more
_FORM = "expected package.module:function, or file.py:function for a file beside the graph"


class Reference(NamedTuple):
    """A function by name: `module` is a dotted name, or a `.py` file relative to the graph's folder."""

    module: str
    attribute: str

    @property
    def is_file(self) -> bool:
        """Whether `module` is a file."""
        return self.module.endswith(".py")


def parse_reference(text: str) -> Reference:
    """Return what `package.module:function` or `file.py:function` names.

    Raises:
        ConfigError: `text` has another form.
    """
    module, mark, attribute = text.rpartition(":")
    parts = [] if module.endswith(".py") else module.split(".")
    names = [*parts, *attribute.split(".")]
    if not (mark and module and all(name.isidentifier() for name in names)):
        raise ConfigError(f"{text!r} names no function; {_FORM}")
    return Reference(module, attribute)


def find_source(reference: Reference, base: Path) -> Path | None:
    """Return the file that holds the function, without running any of it; None where there is no source.

    Args:
        reference: the function.
        base: the graph's folder.

    Raises:
        ConfigError: there is no such file or module, or its source does not define the function.
    """
    if reference.is_file:
        source = existing_file(reference.module, base, "Python file")
    else:
        found = _module_file(reference.module)
        if found is None or found.suffix != ".py":  # built in, or compiled
            return found
        source = found
    _check_defined(source, reference)
    return source


def load_function(reference: Reference, base: Path) -> Any:
    """Return the function (or another object) that `reference` names; this runs its module.

    Raises:
        ConfigError: the module cannot be imported, or has no such attribute.
    """
    shown = f"{reference.module}:{reference.attribute}"
    try:
        module = (
            _import_file(reference, base) if reference.is_file else importlib.import_module(reference.module)
        )
        value: Any = module
        for name in reference.attribute.split("."):
            value = getattr(value, name)
    except ConfigError:
        raise
    except AttributeError as error:
        raise ConfigError(f"{shown} does not exist: {error}; name one that the module defines") from error
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{shown} cannot be imported ({reason}); repair the module") from error
    return value


def function_sha256(reference: Reference, base: Path) -> str:
    """Return the SHA-256 (hex) of the function's source file; of its name where it has no source.

    Raises:
        ConfigError: it is missing.
    """
    source = find_source(reference, base)
    return hashlib.sha256(reference.module.encode()).hexdigest() if source is None else file_sha256(source)


class Caller:
    """Calls one function, a coroutine function on the event loop and any other in a thread of its own.

    Python cannot end a thread. One that runs past its time is left behind, and does not keep the process from
    ending; with `MAX_STUCK` of them, further calls are refused.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function, self._name = function, name
        self._asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - its kind is asked, not whether there is one
        )
        self._stuck = 0

    async def call(self, *args: Any) -> Any:
        """Return what the function returns for `args`.

        Raises:
            RuntimeError: it exits, raises what is no `Exception`, or too many calls of it never ended.
            Exception: what the function raises.
        """
        if self._asynchronous:
            try:
                return await self._function(*args)
            except (SystemExit, KeyboardInterrupt) as error:  # these would end the event loop
                raise RuntimeError(f"{self._name} raised {type(error).__name__}: {error}") from error
        if self._stuck >= MAX_STUCK:
            raise RuntimeError(f"{self._stuck} calls of {self._name} have not ended in their time; repair it")
        result = await self._in_thread(args)
        return await result if inspect.isawaitable(result) else result

    async def _in_thread(self, args: tuple[Any, ...]) -> Any:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                self._stuck -= 1
            elif error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result: Any = None
            failure: BaseException | None = None
            try:
                result = context.run(self._function, *args)
            except Exception as error:  # noqa: BLE001 - handed over to the caller
                failure = error
                if isinstance(error, StopIteration):  # a future cannot hold it
                    failure = RuntimeError(f"{self._name} raised StopIteration")
            except BaseException as error:  # noqa: BLE001 - as above
                failure = RuntimeError(f"{self._name} raised {type(error).__name__}: {error}")
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=work, name=f"cascade-{self._name}", daemon=True).start()
        try:
            return await future
        except asyncio.CancelledError:
            self._stuck += 1
            raise


def _module_file(name: str) -> Path | None:
    """Return the file of a module without importing it or its packages; None if it is built in.

    Raises:
        ConfigError: there is no such module.
    """
    path: list[str] | None = None
    spec: importlib.machinery.ModuleSpec | None = None
    parts = name.split(".")
    for index, part in enumerate(parts):
        known = ".".join(parts[: index + 1])
        if index == 0 and part in sys.builtin_module_names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(known, path) or (
            importlib.util.find_spec(part)
            if index == 0
            else None  # editable installs have finders of their own
        )
        if spec is None:
            where = (
                f"package {'.'.join(parts[:index])!r} has no module {part!r}"
                if index
                else f"no module {part!r}"
            )
            raise ConfigError(
                f"module {name!r} is not installed: {where}; install it, or name a file.py:function"
            )
        path = None if spec.submodule_search_locations is None else [*spec.submodule_search_locations]
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


def _check_defined(source: Path, reference: Reference) -> None:
    """Refuse a function that its module's source surely does not define.

    Raises:
        ConfigError: it does not, or the source cannot be read or parsed.
    """
    try:
        tree = ast.parse(source.read_bytes(), str(source))
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{reference.module} cannot be read: {error}; repair the file") from error
    names = {name for node in ast.walk(tree) for name in _bound(node)}
    wanted = reference.attribute.split(".")[0]
    if wanted not in names and not names & {"*", "__getattr__"}:
        raise ConfigError(f"{reference.module} defines no {wanted!r}; name a function that it defines")


def _bound(node: ast.AST) -> list[str]:
    """Return the names that `node` binds, in whatever scope."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    return []


def _import_file(reference: Reference, base: Path) -> ModuleType:
    """Import a file by its path, once in a process for one state of the file."""
    path = existing_file(reference.module, base, "Python file").resolve()
    name = f"_cascade_{path.stem}_{hashlib.sha256(f'{path} {file_sha256(path)}'.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{reference.module} cannot be imported; {_FORM}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
