from __future__ import annotations

from collections.abc import Callable

import pytest

from ferryline.registry.hints import Hints
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Fault, FaultyStore, Observed, Verb


class _Interrupted(Observed):
    """Lets `act` happen between each of the first reads and the write that is made of it."""

    def __init__(self, inner: MemoryStore, act: Callable[[], None], times: int) -> None:
        super().__init__(inner)
        self._act, self._left = act, times

    def after(self, verb: Verb, key: str) -> None:
        if verb is Verb.GET and self._left:
            self._left -= 1
            self._act()


@pytest.mark.parametrize("is_first", [True, False])
def test_the_news_of_two_writers_at_once_are_both_told(is_first: bool) -> None:
    memory = MemoryStore()
    if not is_first:
        Hints(memory).tell_version("digits", 1)
    other = Hints(memory)
    store = _Interrupted(memory, lambda: other.tell_generation("phishing", "production", 5), times=1)
    Hints(store).tell_generation("digits", "production", 7)
    assert Hints(memory).generation("digits", "production") == 7
    assert Hints(memory).generation("phishing", "production") == 5


def test_news_come_through_a_crowd() -> None:
    memory = MemoryStore()
    numbers = iter(range(1, 100))
    other = Hints(memory)
    store = _Interrupted(memory, lambda: other.tell_version("phishing", next(numbers)), times=4)
    Hints(store).tell_version("digits", 3)
    assert (Hints(memory).versions("digits"), Hints(memory).versions("phishing")) == (3, 4)


def test_a_writer_that_cannot_read_the_hint_takes_nothing_of_it_away() -> None:
    memory = MemoryStore()
    Hints(memory).tell_version("phishing", 5)
    Hints(FaultyStore(memory, [Fault.LOST_REQUEST], only={Verb.GET})).tell_version("digits", 1)
    assert Hints(memory).versions("phishing") == 5


def test_a_hint_that_is_damaged_is_written_anew() -> None:
    memory = MemoryStore()
    memory.put("hint.json", b"damaged")
    Hints(memory).tell_version("digits", 2)
    assert Hints(memory).versions("digits") == 2


class _Conditionless(Observed):
    """Holds no condition of a write to be true, as behind a proxy that changes tags."""

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        return False


def test_news_that_no_condition_lets_pass_are_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.hints._PAUSE", 0.0)
    memory = MemoryStore()
    Hints(memory).tell_version("phishing", 5)
    Hints(_Conditionless(memory)).tell_version("digits", 2)
    assert (Hints(memory).versions("digits"), Hints(memory).versions("phishing")) == (2, 5)
