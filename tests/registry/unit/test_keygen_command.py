"""`ferry keygen` and `ferry keys` as a user types them, and what keys change for the other commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ferryline.registry import Registry
from ferryline.registry.documents import ModelFacts, utc_now
from ferryline.registry.signing.keyfiles import read_private_key
from tests.registry.ferry import Ferry

FACTS = ModelFacts(opset=17, ir_version=8, inputs=(), outputs=())
PASSPHRASE = "correct horse"  # noqa: S105 - it locks what a test has just made

# times are written down in whole seconds
SECOND = timedelta(seconds=1)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_keygen_says_what_it_made_and_what_to_do_next(ferry: Ferry, keys: Path) -> None:
    result = ferry("keygen", "trainer-2026", "--out", str(keys), "--not-after", "2099-01-01")
    assert result.code == 0
    assert str(keys / "trainer-2026.key") in result.out
    assert "2099-01-01 00:00:00 UTC" in result.out
    for variable in (
        "FERRY_TRUSTED_KEYS",
        f"FERRY_SIGNING_KEY={keys / 'trainer-2026.key'}",
        "FERRY_SIGNATURES",
    ):
        assert variable in result.err
    assert "PRIVATE" not in result.out + result.err
    assert read_private_key(keys / "trainer-2026.key", None)


def test_keygen_for_scripts(ferry: Ferry, keys: Path) -> None:
    began = utc_now()
    result = ferry("keygen", "oncall", "--out", str(keys), "--not-after", "365d", "-o", "json")
    assert (result.code, result.err) == (0, "")
    assert set(result.json) == {
        "key_id", "name", "created", "not_after", "ended", "private_key", "public_key",
    }  # fmt: skip
    end = datetime.fromisoformat(result.json["not_after"])
    assert began <= end - timedelta(days=365) + SECOND <= utc_now() + SECOND


def test_keys_lie_beside_the_config_file_by_default(ferry: Ferry, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.touch()
    assert ferry("keygen", "mine", FERRY_CONFIG=str(config)).code == 0
    assert (tmp_path / "keys" / "mine.key").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("Träner",), 2, "cannot name a key"),
        (("../up",), 2, "cannot name a key"),
        (("late", "--not-after", "2001-01-01"), 2, "over already"),
        (("late", "--not-after", "soon"), 2, "no date (2027-01-01) and no span of time (365d)"),
        (("there",), 4, "never overwritten"),
    ],
)
def test_keygen_refuses(ferry: Ferry, keys: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    assert ferry("keygen", "there", "--out", str(keys)).code == 0
    result = ferry("keygen", *arguments, "--out", str(keys))
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


def test_a_passphrase_encrypts_the_key_and_is_never_shown(ferry: Ferry, keys: Path) -> None:
    result = ferry("keygen", "locked", "--out", str(keys), FERRY_SIGNING_PASSPHRASE=PASSPHRASE)
    assert "(encrypted)" in result.out
    assert "FERRY_SIGNING_PASSPHRASE" in result.err
    assert PASSPHRASE not in result.out + result.err
    assert "ENCRYPTED" in (keys / "locked.key").read_text()


def test_keys_shows_what_is_in_force(ferry: Ferry, keys: Path) -> None:
    nothing = ferry("keys")
    assert nothing.code == 0
    assert "signatures: off" in nothing.out
    assert "Nothing is verified here" in nothing.err
    made = [ferry("keygen", name, "--out", str(keys), "-o", "json").json for name in ("old", "new")]
    settings = {"FERRY_TRUSTED_KEYS": str(keys), "FERRY_SIGNING_KEY": str(keys / "new.key")}
    old = keys / "old.pub"
    old.write_text(f"Not-After: 2020-01-01\n{old.read_text()}")
    shown = ferry("keys", **settings)
    assert shown.code == 0
    assert "signatures: optional" in shown.out
    assert "2020-01-01 00:00:00 UTC (over)" in shown.out
    found = ferry("keys", "-o", "json", FERRY_SIGNATURES="required", **settings).json
    assert (found["policy"], found["signs_with"]) == ("required", made[1]["key_id"])
    assert {key["name"]: key["ended"] for key in found["trusted"]} == {"old": True, "new": False}
    assert {key["key_id"] for key in found["trusted"]} == {key["key_id"] for key in made}


def test_a_key_that_signs_and_is_not_trusted_is_pointed_out(ferry: Ferry, keys: Path, tmp_path: Path) -> None:
    ferry("keygen", "mine", "--out", str(keys))
    ferry("keygen", "theirs", "--out", str(tmp_path / "trusted"))
    settings = {
        "FERRY_TRUSTED_KEYS": str(tmp_path / "trusted"),
        "FERRY_SIGNING_KEY": str(keys / "mine.key"),
    }
    assert "is not trusted here" in ferry("keys", **settings).err


def test_wrong_key_settings_stop_a_command_with_one_line(ferry: Ferry, keys: Path) -> None:
    ferry("keygen", "mine", "--out", str(keys))
    (keys / "mine.key").chmod(0o644)
    result = ferry("promote", "digits@1", FERRY_SIGNING_KEY=str(keys / "mine.key"))
    assert result.code == 2
    assert "run: chmod 600" in result.err
    result = ferry("list", FERRY_SIGNATURES="required")
    assert result.code == 2
    assert "needs FERRY_TRUSTED_KEYS" in result.err


def test_required_signatures_from_the_command_line(ferry: Ferry, keys: Path, tmp_path: Path) -> None:
    plain = Registry.open((tmp_path / "registry").as_uri(), actor="mallory")
    ferry("keygen", "mine", "--out", str(keys))
    required = {"FERRY_TRUSTED_KEYS": str(keys), "FERRY_SIGNATURES": "required"}
    signing = {"FERRY_SIGNING_KEY": str(keys / "mine.key")}
    plain.publish("digits", b"forged", FACTS)
    assert ferry("promote", "digits@1", **required, **signing).code == 5
    without_a_key = ferry("promote", "digits@1", **signing, FERRY_SIGNATURES="off")
    assert without_a_key.code == 0
    held = ferry("hold", "digits", **required)
    assert held.code == 5
    assert "refused by gate 'signature'" in held.err
    assert ferry("hold", "digits", "-o", "json", **required, **signing).code == 0
    plain.promote("digits", 1, force=True)
    assert (
        "generation 3 of digits:production is not signed"
        in ferry("release", "digits", **required, **signing).err
    )
    # looking is never refused
    assert ferry("history", "digits", **required).code == 0
    assert ferry("list", **required).code == 0
    assert ferry("show", "digits@1", **required).code == 0


def test_freshness_is_set_by_a_variable(ferry: Ferry, tmp_path: Path) -> None:
    Registry.open((tmp_path / "registry").as_uri(), actor="tester").publish("digits", b"x", FACTS)
    began = utc_now()
    entry = ferry("promote", "digits@1", "-o", "json", FERRY_FRESH_FOR="24h").json
    end = datetime.fromisoformat(entry["expires_at"]).astimezone(UTC)
    assert began <= end - timedelta(hours=24) + SECOND <= utc_now() + SECOND
    refused = ferry("promote", "digits@1", FERRY_FRESH_FOR="soon")
    assert refused.code == 2
    assert "FERRY_FRESH_FOR" in refused.err
