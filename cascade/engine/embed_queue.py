"""Texts of many requests in the same decodes of an encoder. Used on the decode thread only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence

import numpy as np
import numpy.typing as npt

from cascade.engine.embed import BATCH_TOKENS, MAX_TEXTS, Embedder
from cascade.engine.ticket import Ticket
from cascade.errors import CascadeError, ModelError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
_KEPT = 256  # vectors of the latest texts, by their tokens


class EmbedTicket(Ticket):
    """A text that waits for its vector.

    Attributes:
        tokens: its tokens.
        alone: whether it gets a decode of its own.
        vector: its unit vector, once it is done without an error.
        error: why it has none.
        batch: how many different texts were in its decode; 0 for a vector that was there already.
    """

    def __init__(self, stepper: EmbeddingQueue, tokens: IntArray, *, alone: bool) -> None:
        super().__init__(stepper)
        self.tokens, self.alone = tokens, alone
        self.vector: FloatArray | None = None
        self.error: CascadeError | None = None
        self.batch = 0

    def result(self) -> FloatArray:
        """Return the vector of a ticket that is done.

        Raises:
            CascadeError: it has none.
        """
        if self.error is not None:
            raise self.error
        if self.vector is None:
            raise ModelError("an embedding ended without a vector; report this")
        return self.vector


class EmbeddingQueue:
    """Gives texts their vectors: those that wait together in one decode, equal ones only once.

    Has the shape of `ticket.Stepper`. Several heads that are asked about one text share its vector, also
    while it is being computed.
    """

    def __init__(self, embedder: Embedder) -> None:
        """Queue texts for `embedder`."""
        self.embedder = embedder
        self.decodes = 0
        self._waiting: OrderedDict[tuple[bytes, bool], list[EmbedTicket]] = OrderedDict()
        self._kept: OrderedDict[tuple[bytes, bool], FloatArray] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._waiting)

    def request(self, tokens: IntArray, *, alone: bool = False) -> EmbedTicket:
        """Return a ticket for the vector of a tokenized text; it is done at once if the vector is known.

        With `alone` the vector does not depend on what else is asked.

        Raises:
            ModelError: the text is empty or too long.
        """
        self.embedder.check(tokens)
        ticket = EmbedTicket(self, tokens, alone=alone)
        key = (tokens.tobytes(), alone)
        if key in self._kept:
            self._kept.move_to_end(key)
            ticket.vector, ticket.done = self._kept[key], True
        else:
            self._waiting.setdefault(key, []).append(ticket)
        return ticket

    def embed(self, texts: Sequence[IntArray]) -> Generator[Ticket, None, FloatArray]:
        """Return the unit vectors of tokenized texts, shape (texts, size); yields what it waits for.

        Raises:
            ModelError: a text is empty or too long, or the model computes NaN or a vector of zeros.
        """
        self.embedder.check(*texts)
        tickets = [self.request(tokens) for tokens in texts]
        try:
            for ticket in tickets:
                if not ticket.done:
                    yield ticket
        finally:
            for ticket in tickets:
                ticket.abandoned = True  # where the job ended early
        return np.stack([ticket.result() for ticket in tickets])

    def step(self) -> list[EmbedTicket]:
        """Embed one batch of the texts that wait, the oldest first; return the tickets that are done."""
        for key in [key for key, tickets in self._waiting.items() if all(t.abandoned for t in tickets)]:
            del self._waiting[key]
        batch = self._batch()
        if not batch:
            return []
        texts = [tickets[0].tokens for tickets in batch.values()]
        vectors: list[FloatArray | CascadeError] = []
        try:
            vectors += self.embedder.vectors(texts)
        except ModelError as error:
            vectors += [error] if len(texts) == 1 else [self._alone(tokens) for tokens in texts]
        self.decodes += 1
        done = []
        for (key, tickets), vector in zip(batch.items(), vectors, strict=True):
            del self._waiting[key]
            if not isinstance(vector, CascadeError):
                self._keep(key, vector)
            for ticket in tickets:
                _finish(ticket, vector, len(texts))
                done.append(ticket)
        return done

    def fail(self, error: CascadeError) -> list[EmbedTicket]:
        """End all tickets with `error` and return them."""
        tickets = [ticket for group in self._waiting.values() for ticket in group]
        self._waiting.clear()
        for ticket in tickets:
            _finish(ticket, error, 0)
        return tickets

    def interrupt(self) -> None:
        """Do nothing: a decode is short, and what is abandoned is left out of the next one."""

    def _batch(self) -> dict[tuple[bytes, bool], list[EmbedTicket]]:
        batch: dict[tuple[bytes, bool], list[EmbedTicket]] = {}
        room = min(BATCH_TOKENS, self.embedder.cells)
        for key, tickets in self._waiting.items():
            size, alone = len(tickets[0].tokens), tickets[0].alone
            if batch and (alone or size > room or len(batch) == MAX_TEXTS):
                break
            batch[key] = tickets
            room -= size
            if alone:
                break
        return batch

    def _alone(self, tokens: IntArray) -> FloatArray | CascadeError:
        """Embed one text of a failed batch, so that only those fail that fail alone."""
        try:
            return self.embedder.vectors([tokens])[0]
        except ModelError as error:
            return error

    def _keep(self, key: tuple[bytes, bool], vector: FloatArray) -> None:
        vector.flags.writeable = False
        self._kept[key] = vector
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


def _finish(ticket: EmbedTicket, vector: FloatArray | CascadeError, batch: int) -> None:
    if isinstance(vector, CascadeError):
        ticket.error = vector
    else:
        ticket.vector = vector
    ticket.batch, ticket.done = batch, True
