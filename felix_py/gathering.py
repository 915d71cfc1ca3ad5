"""Group commit: what several threads ask for at the same time is carried out together, by one of them."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")


class _Ticket(Generic[Wish, Answer]):
    """A wish, and what became of it."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.answer: tuple[Answer] | None = None
        self.failure: BaseException | None = None
        self.news = threading.Event()

    @property
    def done(self) -> bool:
        return self.answer is not None or self.failure is not None


class Gathering(Generic[Wish, Answer]):
    """Carries wishes out together: while one batch is under way, the next one gathers.

    Args:
        carry_out: answers a batch, in its order; what it raises, each of the batch raises.
    """

    def __init__(self, carry_out: Callable[[Sequence[Wish]], Sequence[Answer]]) -> None:
        self._carry_out = carry_out
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._led = False
        self._waiting: list[_Ticket[Wish, Answer]] = []

    def ask(self, wish: Wish) -> Answer:
        """Have a wish carried out, and return its answer."""
        ticket: _Ticket[Wish, Answer] = _Ticket(wish)
        with self._guard:
            self._waiting.append(ticket)
            follows, self._led = self._led, True
        if follows:
            ticket.news.wait()  # it is done, or this thread leads the next batch
        if not ticket.done:
            self._lead()
        if ticket.answer is None:
            raise ticket.failure or RuntimeError("a wish was lost")
        return ticket.answer[0]

    def alone(self) -> AbstractContextManager[object]:
        """Return a context in which no batch is under way."""
        return self._turn

    def _lead(self) -> None:
        with self._turn:
            with self._guard:
                batch, self._waiting = self._waiting, []
            self._settle(batch)
        with self._guard:
            following, self._led = self._waiting[:1], bool(self._waiting)
        for ticket in (*batch, *following):
            ticket.news.set()

    def _settle(self, batch: Sequence[_Ticket[Wish, Answer]]) -> None:
        try:
            answers = self._carry_out([ticket.wish for ticket in batch])
        except BaseException as failure:  # noqa: BLE001 - each thread raises it
            for ticket in batch:
                ticket.failure = failure
        else:
            for ticket, answer in zip(batch, answers, strict=True):
                ticket.answer = (answer,)
