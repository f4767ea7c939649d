from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from ferryline.registry import Registry
from ferryline.registry.cli import watching
from ferryline.registry.cli.shapes import SHAPES
from ferryline.registry.cli.watched import Event, Scene, events
from ferryline.registry.cli.watching import Watcher
from ferryline.registry.documents import Heartbeat, ServedModelReport, utc_now
from ferryline.registry.errors import StoreDeniedError, StoreUnreachableError
from ferryline.registry.names import ModelReference
from ferryline.registry.stores.base import Stored
from ferryline.registry.stores.folder import FolderStore
from tests.registry.ferry import Ferry
from tests.support.waiting import DEADLINE

pytestmark = pytest.mark.usefixtures("published")


def beat(registry: Registry, **report: Any) -> None:
    now = utc_now()
    manifest = registry.versions("digits").get(report["version"])
    said = {"model": "digits", "channel": "production", "phase": "serving", "digest": manifest.blob.digest}
    said |= report
    registry.consumers.beat(
        Heartbeat(
            consumer="c1", role="grpc", host="h", pid=1, started_at=now, at=now, interval_seconds=DEADLINE,
            models=(ServedModelReport(**said),),
        )
    )  # fmt: skip


class Watch:
    """A watcher and the scene it saw last."""

    def __init__(self, registry: Registry, wanted: str | None = None) -> None:
        self._watcher = Watcher(registry, ModelReference.parse(wanted) if wanted else None)
        self._before = Scene({}, {})

    def look(self) -> list[Event]:
        now = self._watcher.look()
        found = list(events(self._before, now))
        self._before = now
        return found

    def texts(self) -> list[str]:
        return [event.text for event in self.look()]


def test_what_is_there_then_what_changes_then_nothing(store_url: str) -> None:
    registry, watch = Registry.open(store_url), Watch(Registry.open(store_url))
    assert [text.partition(" by ")[0] for text in watch.texts()] == [
        "digits:production generation 3 promote version 3"
    ]
    assert watch.look() == []
    registry.promote("digits", 1, reason="first")
    registry.promote("digits", 2, reason="second")
    told = watch.texts()
    assert [text.rpartition(": ")[2] for text in told] == ["first", "second"], "every entry, none skipped"
    assert watch.look() == []


def test_consumers_come_change_and_leave(store_url: str) -> None:
    registry, watch = Registry.open(store_url), Watch(Registry.open(store_url))
    watch.look()
    beat(registry, version=2, generation=2)
    assert watch.texts() == ["c1 serving digits:production version 2 generation 2, 1 behind"]
    beat(registry, version=2, generation=2)
    assert watch.look() == []
    beat(registry, version=2, generation=2, last_error="refused")
    assert watch.texts() == ["c1 serving digits:production version 2 generation 2, 1 behind (refused)"]
    registry.consumers.leave("c1")
    assert watch.texts() == ["c1 left digits:production"]


def test_every_entry_of_a_channel_that_is_new_is_told(store_url: str) -> None:
    registry, watch = Registry.open(store_url), Watch(Registry.open(store_url))
    watch.look()
    registry.promote("digits", 1, "staging", reason="first")
    registry.promote("digits", 2, "staging", reason="second")
    assert [text.rpartition(": ")[2] for text in watch.texts()] == ["first", "second"]
    registry.promote("digits", 3, "staging", reason="third")
    assert [text.rpartition(": ")[2] for text in watch.texts()] == ["third"]


def test_a_damaged_channel_silences_no_other(store_url: str) -> None:
    registry, watch = Registry.open(store_url), Watch(Registry.open(store_url))
    registry.promote("digits", 1, "staging")
    key = "models/digits/channels/production/0000000004.json"
    watch.look()
    registry.store.put(key, b"damaged")
    registry.promote("digits", 2, "staging", reason="told")
    beat(registry, version=3, generation=3)
    damaged, told, consumer = watch.look()
    assert damaged.text.startswith("digits:production cannot be read: ")
    assert (damaged.kind, damaged.details["readable"]) == ("channel", False)
    assert told.text.endswith(": told")
    assert (consumer.kind, consumer.details["generations_behind"]) == ("consumer", 0)
    TypeAdapter(SHAPES["watch"]).validate_python({"at": utc_now(), "event": damaged.kind, **damaged.details})
    assert watch.look() == [], "once"
    registry.store.delete(key)
    registry.promote("digits", 1, reason="mended")
    assert [text.rpartition(": ")[2] for text in watch.texts()] == [
        "digits:production can be read again",
        "mended",
    ]


def test_a_channel_that_was_damaged_from_the_start_is_told_as_it_is_when_it_can_be_read(
    store_url: str,
) -> None:
    registry = Registry.open(store_url)
    key = "models/digits/channels/production/0000000003.json"
    whole = registry.store.get(key).data
    registry.store.put(key, b"damaged")
    watch = Watch(Registry.open(store_url))
    assert [event.kind for event in watch.look()] == ["channel"]
    registry.store.put(key, whole)
    assert [event.kind for event in watch.look()] == ["channel", "entry"]


def test_a_channel_that_can_be_read_again_in_a_look_that_fails_is_not_told_from_its_first_entry_on(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(store_url)
    registry.promote("digits", 1, "staging")
    key = "models/digits/channels/production/0000000003.json"
    whole = registry.store.get(key).data
    registry.store.put(key, b"damaged")
    watch = Watch(Registry.open(store_url))
    watch.look()
    registry.store.put(key, whole)
    get = FolderStore.get

    def unreachable(store: FolderStore, key: str) -> Stored:
        if "/staging/" in key:
            raise StoreUnreachableError("away")
        return get(store, key)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "get", unreachable)
        assert [event.kind for event in watch.look()] == ["store"]
    assert [event.kind for event in watch.look()] == ["store", "channel", "entry"]


def test_who_is_gone_is_told_by_the_stores_clock(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, watch = Registry.open(store_url), Watch(Registry.open(store_url))
    beat(registry, version=3, generation=3)
    watch.look()
    later = timedelta(seconds=4 * DEADLINE)
    monkeypatch.setattr(FolderStore, "now", lambda _: utc_now() + later)
    assert watch.texts() == ["c1 gone digits:production version 3 generation 3"]


def test_only_what_is_wanted(store_url: str) -> None:
    registry = Registry.open(store_url)
    registry.promote("digits", 1, "staging")
    beat(registry, version=1, generation=1)
    watch = Watch(registry, "digits:staging")
    assert [text.split()[0] for text in watch.texts()] == ["digits:staging"]


def test_an_outage_is_told_once_and_survived(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, watch = Registry.open(store_url), Watch(Registry.open(store_url))
    watch.look()
    registry.promote("digits", 1, reason="meanwhile")
    with monkeypatch.context() as outage:

        def down(*_: object, **__: object) -> None:
            raise StoreUnreachableError("the store is down")

        outage.setattr(FolderStore, "folders", down)
        assert watch.texts() == ["the store is down"]
        assert watch.look() == []
    told = watch.texts()
    assert told[0] == "the store answers again"
    assert "meanwhile" in told[1], "nothing that happened meanwhile is lost"


def test_what_was_wrong_from_the_start_ends_it(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise StoreDeniedError("no")

    monkeypatch.setattr(FolderStore, "folders", denied)
    with pytest.raises(StoreDeniedError):
        Watch(Registry.open(store_url)).look()


@pytest.mark.parametrize("output", ["json", "table"])
def test_a_pipe_gets_a_line_for_each(
    ferry: Ferry, store_url: str, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    registry = Registry.open(store_url)
    beat(registry, version=2, generation=2)
    stop = threading.Event()
    look = Watcher.look
    looks: list[int] = []

    def counted(self: Watcher) -> Scene:
        looks.append(1)
        if len(looks) == 2:
            registry.promote("digits", 1, reason="a\nb")
            registry.consumers.leave("c1")
            stop.set()
        return look(self)

    monkeypatch.setattr(watching, "stop_on_signals", lambda: stop)
    monkeypatch.setattr(Watcher, "look", counted)
    done = ferry("watch", "--interval", "0.1", "-o", output)
    lines = done.out.splitlines()
    assert (done.code, done.err, len(lines)) == (0, "", 4)
    if output == "json":
        shape = TypeAdapter(SHAPES["watch"])
        kinds = [shape.validate_json(line).event for line in lines]
        assert kinds == ["entry", "consumer", "entry", "consumer"]
        assert orjson.loads(lines[3])["state"] == "left"
    else:
        assert lines[2].endswith("version 1 by tester: a b")


@pytest.mark.parametrize("interval", ["0", "nan", "1e9", "-1"])
def test_an_interval_that_is_none_is_refused(ferry: Ferry, interval: str) -> None:
    assert ferry("watch", "--interval", interval).code == 2
