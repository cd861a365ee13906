"""What a fork must not copy: threads, locks and connections belong to the process that made them.

A fork copies the memory but only the thread that forks. A lock that another thread holds stays locked in the
child, a thread that would answer is gone, and a connection is shared with the parent. SQLite even believes in
the child that it holds the parent's file locks. Whoever owns such things registers here how to forget them,
and work that a fork must not cut in two passes through a gate, for which the fork waits.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Forkable(Protocol):
    """Owns what a fork must not copy."""

    def after_fork(self) -> None:
        """Begin anew in the child. Must only assign: no lock may be taken, nothing of the parent's closed."""
        ...


_forkable: weakref.WeakSet[Any] = weakref.WeakSet()
_gates: weakref.WeakSet[ForkGate] = weakref.WeakSet()


def forget_after_fork(owner: Forkable) -> None:
    """Call `owner.after_fork` in every forked child, as long as `owner` lives."""
    _forkable.add(owner)


def abandon(thing: object) -> None:
    """Keep `thing` until this process ends, so that no destructor touches what the parent still uses."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class ForkGate:
    """Work of which a fork sees all or nothing: the fork waits until nobody is at work.

    Args:
        quiesce: called before the fork once nobody is at work; releases what must not be copied.
        seconds: how long a fork waits. After that the child is not `clean`.

    Attributes:
        clean: False in a child that was forked while somebody was at work; nothing of it can be used there.
    """

    def __init__(self, quiesce: Callable[[], object] = lambda: None, seconds: float = 5.0) -> None:
        self.clean = True
        self._quiesce, self._seconds = quiesce, seconds
        self._changed = threading.Condition()
        self._inside: list[int] = []  # threads at work
        self._forks = 0
        _gates.add(self)

    def enter(self) -> None:
        """Begin work; waits while this process forks."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._forks or me in self._inside)
            self._inside.append(me)

    def leave(self) -> None:
        """End work, in the thread that began it or another one."""
        me = threading.get_ident()
        with self._changed:
            if self._inside:
                self._inside.remove(me if me in self._inside else self._inside[0])
            self._changed.notify_all()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Work between `enter` and `leave`."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def close_for_fork(self) -> None:
        """Wait until nobody is at work, and let nobody begin."""
        own = threading.get_ident()
        with self._changed:
            self._forks += 1
            # A thread that forks in the middle of its own work would wait for itself.
            self._changed.wait_for(lambda: not self._inside or own in self._inside, self._seconds)
            quiet = not self._inside
        if quiet:
            self._quiesce()

    def open_in_parent(self) -> None:
        """Let everybody go on."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def open_in_child(self) -> None:
        """Begin anew: the threads that were at work are not in this process."""
        self.clean = self.clean and not self._inside
        self._changed = threading.Condition()
        self._inside, self._forks = [], 0


def _before() -> None:
    for gate in list(_gates):
        gate.close_for_fork()


def _in_parent() -> None:
    for gate in list(_gates):
        gate.open_in_parent()


def _in_child() -> None:
    for gate in list(_gates):
        gate.open_in_child()
    for owner in list(_forkable):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
