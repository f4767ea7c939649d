"""A registry and marks that the last release under the former name wrote go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.registry.errors import BrokenChainError
from ferryline.registry.opening import open_registry
from ferryline.registry.ratchet import Mark, Ratchet
from ferryline.registry.settings import load_settings
from tests.registry.ferry import Ferry
from tests.support import former_release
from tests.support.former_release import Home

OTHER = "sha256:" + 64 * "0"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return former_release.made(tmp_path / "home", monkeypatch)


def test_signed_versions_and_promotions_are_trusted(ferry: Ferry, home: Home) -> None:
    verified = ferry("verify")
    assert (verified.code, "nothing is damaged" in verified.err) == (0, True)
    assert "note: moved" in verified.err
    listed = ferry("list", "-o", "json")
    assert listed.json[0]["channels"]["production"]["version"] == former_release.VERSION
    assert home.present("data").is_dir()
    assert "note:" not in listed.err


def test_a_mark_still_keeps_an_older_log_away(home: Home) -> None:
    settings = load_settings()
    mark = Ratchet(settings.state, settings.store, "digits", "production").mark()
    assert mark is not None
    assert mark.generation == former_release.VERSION
    (home.present("data") / "registry/models/digits/channels/production/0000000002.json").unlink()
    registry = open_registry(settings)
    again = Ratchet(settings.state, settings.store, "digits", "production")
    with pytest.raises(BrokenChainError, match="is at generation 1 and was at 2 before"):
        again.require(again.mark(), registry.channel("digits", "production").head(), lambda _: "")


def test_whoever_names_the_former_url_has_the_same_marks(home: Home) -> None:
    settings = load_settings()
    former = (home.former("data") / "registry").as_uri()
    running = Ratchet(settings.state, former, "digits", "production")  # of the last release
    Ratchet(settings.state, settings.store, "digits", "production").advance(Mark(3, OTHER))
    assert running.mark() == Mark(3, OTHER)
    running.advance(Mark(4, OTHER))
    for url in (former, settings.store):
        assert Ratchet(settings.state, url, "digits", "production").mark() == Mark(4, OTHER)


def test_another_store_at_the_default_place_does_not_get_the_marks(home: Home) -> None:
    home.present("data").mkdir()
    settings = load_settings()
    assert Ratchet(settings.state, settings.store, "digits", "production").mark() is None
    former = (home.former("data") / "registry").as_uri()
    mark = Ratchet(settings.state, former, "digits", "production").mark()
    assert mark is not None
    assert mark.generation == former_release.VERSION
