"""Writers to a folder that are killed or frozen at every request, and killed at every line of the store."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from ferryline.registry.stores.folder import FolderStore
from tests.faulty_store import missing
from tests.registry.interruptions import Interruptions, require_switch
from tests.registry.victims import OBJECT, Ending, Order, Victims


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as started:
        yield started


class TestInterruptionsInAFolder(Interruptions):
    """The folder is that of the fixture `store_url`."""


def _killed_at_each_line(victims: Victims, root: Path, call: str) -> Iterator[tuple[FolderStore, Ending]]:
    for line in count(1):
        store = FolderStore(root / str(line))
        if call == "put":
            store.put(OBJECT, b"before")
        ending = victims.run(Order(call, store.url, line, name="written", lines=True))
        yield store, ending
        if ending.exited is not None:
            assert ending.exited == 0
            return


def test_a_put_if_absent_killed_at_any_line_wrote_all_or_nothing(victims: Victims, tmp_path: Path) -> None:
    written: list[bool] = []
    for store, _ in _killed_at_each_line(victims, tmp_path / "lines", "put_if_absent"):
        written.append(not missing(store, OBJECT))
        # whatever was left behind is not seen, and does not stand in the way of the next writer
        assert [item.key for item in store.list("")] == [OBJECT] * written[-1]
        assert list(store.folders("")) == ["log"] * written[-1]
        assert store.put_if_absent(OBJECT, b"the next") is not written[-1]
        assert store.get(OBJECT).data == (b"written" if written[-1] else b"the next")
        store.put("log/0000000002.json", b"second")
        assert [item.key for item in store.list("log/")] == [OBJECT, "log/0000000002.json"]
    assert len(written) > 20
    require_switch(written)


def test_a_replacement_killed_at_any_line_shows_the_old_or_the_new_object(
    victims: Victims, tmp_path: Path
) -> None:
    written: list[bool] = []
    for store, _ in _killed_at_each_line(victims, tmp_path / "lines", "put"):
        data = store.get(OBJECT).data
        assert data in {b"before", b"written"}
        written.append(data == b"written")
        store.put(OBJECT, b"the next")
        assert store.get(OBJECT).data == b"the next"
    require_switch(written)
