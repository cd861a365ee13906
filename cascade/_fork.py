"""What a forked child makes anew: threads, locks and connections belong to the process that made them.

A fork copies the memory but only the thread that forks. A lock that another thread held stays locked in the
child, a thread that would have answered is gone, and a connection is shared with the parent. So each object
that owns such things registers how to forget them; the child runs these functions before anything else.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

_forgetful: list[weakref.WeakMethod[Callable[[], Any]]] = []


def forget_after_fork(method: Callable[[], object]) -> None:
    """Call a bound `method` in every forked child, as long as its object lives; in the order registered.

    It must only assign: no lock may be taken, and nothing that the parent still uses may be closed.
    """
    _forgetful.append(weakref.WeakMethod(method, _forgetful.remove))


def _in_child() -> None:
    for reference in _forgetful.copy():  # an object may die meanwhile
        method = reference()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_in_child)
