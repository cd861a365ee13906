"""The writing thread keeps the order, batches waiting items, and loses nothing at the end."""

from __future__ import annotations

import subprocess
import sys
import threading

from cascade.trace._writing import BatchWriter


def test_waiting_items_are_written_together_and_in_order() -> None:
    begun, go_on = threading.Event(), threading.Event()
    groups: list[list[int]] = []

    def write(group: list[int]) -> None:
        groups.append(group)
        begun.set()
        assert go_on.wait(30)

    writer = BatchWriter("a test", write)
    assert writer.put(0)
    assert begun.wait(30)  # the first is being written; the others wait
    assert all(writer.put(number) for number in range(1, 300))
    go_on.set()
    writer.close()
    assert groups == [[0], list(range(1, 257)), list(range(257, 300))]


def test_a_closed_writer_accepts_nothing_and_can_be_closed_again() -> None:
    written: list[int] = []
    writer = BatchWriter("a test", written.extend)
    assert writer.put(1)
    writer.close()
    writer.close()
    assert not writer.put(2)
    assert written == [1]
    unused = BatchWriter("a test", written.extend)
    unused.close()
    assert not unused.put(3)


def test_queued_items_are_written_when_the_process_ends() -> None:
    code = (
        "from cascade.trace._writing import BatchWriter\n"
        "writer = BatchWriter('a test', lambda group: print(*group, flush=True))\n"
        "for number in range(5): writer.put(number)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "1", "2", "3", "4"]
