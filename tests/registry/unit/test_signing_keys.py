"""Keys on disk: how they are made, read and refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from ferryline.registry.documents import utc_now
from ferryline.registry.durations import parse_duration
from ferryline.registry.errors import ConflictError, UsageError
from ferryline.registry.settings import load_settings
from ferryline.registry.signing.keyfiles import KeyPair, make_key_pair, read_private_key
from ferryline.registry.signing.pem import parse_private, private_pem, public_pem
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.setup import policy_of, ratchet_folder, seal_of
from ferryline.registry.signing.signer import Signer
from ferryline.registry.signing.trust import read_trusted_keys

PASSPHRASE = "correct horse"  # noqa: S105 - it locks what a test has just made
END = datetime(2099, 1, 1, tzinfo=UTC)


def made(folder: Path, name: str = "trainer", *, passphrase: str | None = None) -> KeyPair:
    return make_key_pair(folder, name, created=utc_now(), not_after=END, passphrase=passphrase)


def test_a_pair_is_private_and_can_be_read_again(tmp_path: Path) -> None:
    pair = made(tmp_path / "keys")
    assert pair.private.stat().st_mode & 0o777 == 0o600
    assert pair.private.parent.stat().st_mode & 0o777 == 0o700
    (trusted,) = read_trusted_keys(pair.public)
    assert trusted == pair.key
    assert (trusted.name, trusted.not_after) == ("trainer", END)
    assert Signer.from_file(pair.private).key_id == trusted.key_id
    assert read_trusted_keys(pair.public.parent) == (trusted,)


def test_the_umask_opens_no_private_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert made(tmp_path / "keys").private.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_the_files_are_what_other_tools_read_and_write(tmp_path: Path) -> None:
    pair = made(tmp_path)
    key = serialization.load_pem_private_key(pair.private.read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    public = serialization.load_pem_public_key(pair.public.read_bytes())
    assert public == key.public_key()
    theirs = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert parse_private(theirs.decode(), None).private_bytes_raw() == key.private_bytes_raw()
    assert private_pem(key, None) == theirs.decode()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    assert public_pem(pair.key.raw) == public.public_bytes(serialization.Encoding.PEM, spki).decode()


@pytest.mark.parametrize("exists", ["trainer.key", "trainer.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, exists: str) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / exists).write_text("precious")
    with pytest.raises(ConflictError, match="never overwritten"):
        made(folder)
    assert (folder / exists).read_text() == "precious"
    assert [path.name for path in folder.iterdir()] == [exists]


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out"):
        made(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot name a key"):
        made(tmp_path, "../trainer")


def test_a_passphrase_locks_the_key(tmp_path: Path) -> None:
    pair = made(tmp_path, passphrase=PASSPHRASE)
    assert "ENCRYPTED" in pair.private.read_text()
    assert Signer.from_file(pair.private, PASSPHRASE).key_id == pair.key.key_id
    with pytest.raises(UsageError, match="set FERRY_SIGNING_PASSPHRASE"):
        Signer.from_file(pair.private)
    with pytest.raises(UsageError, match="is FERRY_SIGNING_PASSPHRASE the right one"):
        Signer.from_file(pair.private, "wrong horse")
    with pytest.raises(UsageError, match="it is not encrypted"):
        Signer.from_file(made(tmp_path, "open").private, PASSPHRASE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777, 0o620])
def test_a_private_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    pair = made(tmp_path)
    pair.private.chmod(mode)
    with pytest.raises(UsageError, match=f"mode {mode:04o}.*run: chmod 600"):
        read_private_key(pair.private, None)


def test_a_mounted_secret_of_root_may_be_read_by_our_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = made(tmp_path)
    if pair.private.stat().st_uid != 0:
        pytest.skip("only root can make a file of root's")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    pair.private.chmod(0o440)
    assert read_private_key(pair.private, None)
    pair.private.chmod(0o444)
    with pytest.raises(UsageError, match="mode 0444"):
        read_private_key(pair.private, None)


def rsa_pem() -> str:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is only refused
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no PEM private key"),
        ("\x00\xff", "no PEM private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no Ed25519 key"),
        ("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n", "base64 is damaged"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no PEM private key"),
        (rsa_pem(), "no Ed25519 key"),
    ],
)
def test_a_file_that_is_no_signing_key_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "odd.key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(UsageError, match=why):
        read_private_key(file, None)


def test_a_signing_key_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    for odd in (tmp_path, tmp_path / "gone.key"):
        with pytest.raises(UsageError, match=r"FERRY_SIGNING_KEY names the \.key file"):
            read_private_key(odd, None)


# --- trust files ----------------------------------------------------------------------------------


def test_files_may_be_joined_and_lie_in_a_folder_with_others(tmp_path: Path) -> None:
    first, second = made(tmp_path / "made", "first"), made(tmp_path / "made", "second")
    joined = tmp_path / "all.pub"
    joined.write_text(f"# ours\n{first.public.read_text()}\n# theirs\n{second.public.read_text()}")
    assert [key.name for key in read_trusted_keys(joined)] == ["first", "second"]
    (tmp_path / "made" / "README").write_text("not a key")
    assert {key.key_id for key in read_trusted_keys(tmp_path / "made")} == {
        first.key.key_id,
        second.key.key_id,
    }


def test_a_bare_pem_block_is_enough(tmp_path: Path) -> None:
    pair = made(tmp_path)
    pair.public.write_text(public_pem(pair.key.raw))
    (key,) = read_trusted_keys(tmp_path)
    assert (key.key_id, key.name, key.not_after) == (pair.key.key_id, "", None)
    assert str(key) == key.key_id


def misspelt(text: str) -> str:
    return text.replace("Not-After", "Not-Aftr")


def of_another_key(text: str) -> str:
    return text.replace("Key-Id: ", "Key-Id: 0")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (misspelt, "'Not-Aftr: 2099-01-01T00:00:00[+]00:00' is no line of a key"),
        (of_another_key, "one of the two was changed"),
        (lambda text: text.replace("2099-01-01", "soon"), "Not-After 'soonT.*' is no time"),
        (lambda text: text[: text.index("-----END")], "no line of a key|no whole public key"),
        (lambda text: text + "Name: dangling\n", "no whole public key follows 'Name'"),
        (lambda text: text.replace("MCow", "MCox"), "no Ed25519 key"),
        (lambda text: text.replace("MCow", "MC"), "base64 is damaged"),
        (lambda _text: "", "holds no public key"),
        (lambda text: text + text, "remove one"),
        (lambda _text: private_pem(ed25519.Ed25519PrivateKey.generate(), None), "PRIVATE key"),
    ],
)
def test_a_damaged_trust_file_is_refused(tmp_path: Path, damage: Callable[[str], str], why: str) -> None:
    pair = made(tmp_path)
    pair.public.write_text(damage(pair.public.read_text()))
    with pytest.raises(UsageError, match=why):
        read_trusted_keys(tmp_path)


def test_trust_that_anyone_may_write_is_refused(tmp_path: Path) -> None:
    pair = made(tmp_path / "keys")
    pair.public.chmod(0o646)
    with pytest.raises(UsageError, match="run: chmod o-w"):
        read_trusted_keys(tmp_path / "keys")
    pair.public.chmod(0o644)
    (tmp_path / "keys").chmod(0o777)
    with pytest.raises(UsageError, match="run: chmod o-w"):
        read_trusted_keys(tmp_path / "keys")


def test_trust_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FERRY_TRUSTED_KEYS names a file or a folder"):
        read_trusted_keys(tmp_path / "gone")
    with pytest.raises(UsageError, match="holds no public key"):
        read_trusted_keys(tmp_path)


# --- settings -------------------------------------------------------------------------------------


@pytest.fixture
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FERRY_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "config.toml"
    config.write_text("")
    monkeypatch.setenv("FERRY_CONFIG", str(config))


@pytest.mark.usefixtures("_no_settings")
def test_nothing_configured_means_nothing_is_done() -> None:
    settings = load_settings()
    seal = seal_of(settings)
    assert (seal.signer, seal.verifier, seal.fresh_for) == (None, None, None)
    assert policy_of(settings) is SignaturePolicy.OFF
    assert ratchet_folder(settings) is None


@pytest.mark.usefixtures("_no_settings")
def test_settings_say_who_signs_and_whom_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = made(tmp_path, passphrase=PASSPHRASE)
    monkeypatch.setenv("FERRY_TRUSTED_KEYS", str(tmp_path))
    monkeypatch.setenv("FERRY_SIGNING_KEY", str(pair.private))
    monkeypatch.setenv("FERRY_SIGNING_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("FERRY_FRESH_FOR", "36h")
    seal = seal_of(load_settings())
    assert seal.signer is not None
    assert seal.verifier is not None
    assert seal.fresh_for is not None
    assert seal.signer.key_id == pair.key.key_id
    assert seal.verifier.policy is SignaturePolicy.OPTIONAL
    assert [str(key) for key in seal.verifier.keyring] == [str(pair.key)]
    assert seal.fresh_for.total_seconds() == 36 * 3600
    assert ratchet_folder(load_settings()) == load_settings().state
    monkeypatch.setenv("FERRY_RATCHET", "false")
    assert ratchet_folder(load_settings()) is None
    assert PASSPHRASE not in repr(load_settings())
    monkeypatch.setenv("FERRY_SIGNATURES", "off")
    monkeypatch.setenv("FERRY_RATCHET", "true")
    assert seal_of(load_settings()).verifier is None
    assert ratchet_folder(load_settings()) == load_settings().state


@pytest.mark.usefixtures("_no_settings")
@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("FERRY_SIGNATURES", "required", "needs FERRY_TRUSTED_KEYS"),
        ("FERRY_SIGNATURES", "optional", "needs FERRY_TRUSTED_KEYS"),
        ("FERRY_SIGNATURES", "sometimes", "FERRY_SIGNATURES is wrong"),
        ("FERRY_TRUSTED_KEYS", ".", "holds no public key"),
        ("FERRY_SIGNING_KEY", ".", "FERRY_SIGNING_KEY names"),
        ("FERRY_FRESH_FOR", "soon", "no span of time"),
        ("FERRY_FRESH_FOR", "0", "more than nothing"),
        ("FERRY_FRESH_FOR", "9000d", "ten years"),
    ],
)
def test_wrong_settings_are_refused_and_never_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=why):
        seal_of(load_settings())


@pytest.mark.usefixtures("_no_settings")
@pytest.mark.parametrize("value", ["1e20", "-1", "0", "nan", '"soon"'])
def test_a_config_file_is_held_to_the_same(tmp_path: Path, value: str) -> None:
    (tmp_path / "config.toml").write_text(f"fresh_for = {value}")
    with pytest.raises(UsageError, match="'fresh_for'"):
        seal_of(load_settings())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2 h", 7200), ("7d", 604_800), ("3min", 180)],
)
def test_spans_of_time(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1h", "1e9d", "1y", "0", "99999d", "9" * 400, "nan", "inf"])
def test_what_is_no_span_of_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"span of time|ten years"):
        parse_duration(text)
