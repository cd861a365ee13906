"""The only file that imports llama.cpp's Python binding. Importing it loads the library (about 0.2 s).

llama.cpp logs to stderr by default. Here its log goes to the logger `cascade.llama_cpp`, and the first error
line is kept, so that a failed call can report its cause.
"""

from __future__ import annotations

import ctypes
import logging
import os

# When ggml aborts, it starts a debugger and prints to stdout, which a server must not do.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

from llama_cpp import __version__ as version
from llama_cpp import llama_cpp as api

__all__ = ["api", "first_error", "forget_errors", "logits_address", "version"]

_WARN, _ERROR = 3, 4  # ggml_log_level
_log = logging.getLogger("cascade.llama_cpp")
_errors: list[str] = []


@api.llama_log_callback  # type: ignore[untyped-decorator]  # the binding has no types here
def _to_logging(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    line = text.decode(errors="replace").strip()
    if level == _ERROR and line:
        _errors.append(line)
    # Errors reach the user as ModelError, so nothing here needs to be visible by default.
    priority = logging.INFO if level in (_WARN, _ERROR) else logging.DEBUG
    if _log.isEnabledFor(priority) and line:
        _log.log(priority, "%s", line)


# Set after the import, which installs a callback of its own. A module global, because it must never be freed.
api.llama_log_set(_to_logging, ctypes.c_void_p(0))
api.llama_backend_init()


def forget_errors() -> None:
    """Forget what llama.cpp has logged so far; to be called before a call that may fail."""
    _errors.clear()


def first_error() -> str:
    """Return the first error line since `forget_errors`, which is the cause of later ones."""
    return _errors[0] if _errors else "llama.cpp gave no reason"


# A second function object for the same symbol, because an integer result is cheaper than a ctypes pointer.
logits_address = api._lib["llama_get_logits"]
logits_address.argtypes = [ctypes.c_void_p]
logits_address.restype = ctypes.c_void_p
