"""A registry and marks that the last release under the former name wrote go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.registry.errors import BrokenChainError
from ferryline.registry.opening import open_registry
from ferryline.registry.ratchet import Ratchet
from ferryline.registry.settings import load_settings
from tests.registry.ferry import Ferry
from tests.support import former_release
from tests.support.former_release import Home


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


def test_marks_are_moved_with_the_store_and_not_doubled(home: Home) -> None:
    settings = load_settings()
    for _ in range(2):
        Ratchet(settings.state, settings.store, "digits", "production")
    assert len(list((home.present("state") / "ratchet").iterdir())) == 1
