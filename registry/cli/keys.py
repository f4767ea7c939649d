"""`ferry keygen | keys`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.output import note, print_fields, print_json, print_table
from ferryline.registry.documents import utc_now
from ferryline.registry.durations import parse_duration
from ferryline.registry.errors import UsageError
from ferryline.registry.settings import Settings, config_file, load_settings
from ferryline.registry.signing.keyfiles import KeyPair, make_key_pair
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.setup import policy_of, seal_of
from ferryline.registry.signing.trust import TrustedKey, parse_moment, read_trusted_keys


def keygen(output: OutputFormat, name: str, out: Path | None, not_after: str | None) -> None:
    """Make a key pair.

    Raises:
        UsageError: the name, the time or the folder will not do.
        ConflictError: a key of that name exists.
    """
    now = utc_now()
    secret = load_settings().signing_passphrase
    pair = make_key_pair(
        out or config_file().parent / "keys",
        name,
        created=now,
        not_after=None if not_after is None else _end(not_after, now),
        passphrase=secret.get_secret_value() if secret else None,
    )
    if output is OutputFormat.JSON:
        print_json(_described(pair.key) | {"private_key": str(pair.private), "public_key": str(pair.public)})
        return
    print_fields(
        [
            ("key id", pair.key.key_id),
            ("private key", f"{pair.private} ({'encrypted' if secret else 'not encrypted'})"),
            ("public key", str(pair.public)),
            ("signs until", _until(pair.key)),
        ]
    )
    for line in _next_steps(pair, encrypted=secret is not None):
        note(line)


def list_keys(output: OutputFormat) -> None:
    """The trusted keys, the key that signs here, and the policy.

    Raises:
        UsageError: a key file cannot be used, or the policy asks for trusted keys and none are named.
    """
    settings = load_settings()
    signer = seal_of(settings).signer
    keys = read_trusted_keys(settings.trusted_keys) if settings.trusted_keys else ()
    policy, signs_with = policy_of(settings), signer.key_id if signer else None
    if output is OutputFormat.JSON:
        print_json(
            {
                "policy": policy,
                "signs_with": signs_with,
                "trusted": [_described(key) | _file(key) for key in keys],
            }
        )
        return
    print_table(
        ["KEY ID", "NAME", "CREATED", "SIGNS UNTIL", "SIGNS HERE", "FILE"],
        [_row(key, signs_with) for key in keys],
        title=f"signatures: {policy}",
    )
    for line in _remarks(settings, policy, signs_with, keys):
        note(line)


def _end(text: str, now: datetime) -> datetime:
    try:
        end = parse_moment(text)
    except ValueError:
        end = _after(text, now)
    if end <= now:
        raise UsageError(f"--not-after {text} is over already; the key could sign nothing")
    return end.astimezone(UTC)


def _after(text: str, now: datetime) -> datetime:
    try:
        return now.replace(microsecond=0) + timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise UsageError(
            f"--not-after {text!r} is no date (2027-01-01) and no span of time (365d)"
        ) from error


def _next_steps(pair: KeyPair, *, encrypted: bool) -> list[str]:
    secret = " and FERRY_SIGNING_PASSPHRASE" if encrypted else ""
    trust = (
        f"1. Copy {pair.public.name} into one folder of trusted keys wherever models are trained, served or "
        "operated, and set FERRY_TRUSTED_KEYS to that folder."
    )
    sign = (
        f"2. Where versions are published or promoted, set FERRY_SIGNING_KEY={pair.private}{secret}, "
        "and keep that file there alone."
    )
    require = (
        "3. Once each channel serves a version that was published and promoted with the key, set "
        "FERRY_SIGNATURES=required everywhere. `ferry keys` shows what is in force."
    )
    return ["Next:", trust, sign, require]


def _remarks(
    settings: Settings, policy: SignaturePolicy, signs_with: str | None, keys: tuple[TrustedKey, ...]
) -> list[str]:
    remarks = []
    if policy is SignaturePolicy.OFF:
        remarks.append("Nothing is verified here: set FERRY_TRUSTED_KEYS (see `ferry keygen --help`).")
    if signs_with is None:
        remarks.append("Nothing is signed here: set FERRY_SIGNING_KEY to a .key file.")
    elif signs_with not in {key.key_id for key in keys}:
        remarks.append(f"Key {signs_with} signs here ({settings.signing_key}) and is not trusted here.")
    return remarks


def _described(key: TrustedKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "created": key.created,
        "not_after": key.not_after,
        "ended": _ended(key),
    }


def _file(key: TrustedKey) -> dict[str, str]:
    return {"file": str(key.source)}


def _row(key: TrustedKey, signs_with: str | None) -> tuple[str, ...]:
    created = f"{key.created:%Y-%m-%d}" if key.created else "-"
    here = "yes" if key.key_id == signs_with else "-"
    return key.key_id, key.name or "-", created, _until(key), here, str(key.source)


def _until(key: TrustedKey) -> str:
    if key.not_after is None:
        return "for ever"
    return f"{key.not_after:%Y-%m-%d %H:%M:%S %Z}" + (" (over)" if _ended(key) else "")


def _ended(key: TrustedKey) -> bool:
    return key.not_after is not None and key.not_after < utc_now()
