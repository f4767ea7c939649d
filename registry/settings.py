"""Settings that every program shares: flags first, then `FERRY_*` variables, then a config file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from ferryline.registry.durations import LONGEST, parse_duration
from ferryline.registry.errors import FerryError, UsageError
from ferryline.registry.folders import default_store, user_folder
from ferryline.registry.signing.policy import SignaturePolicy

PREFIX = "FERRY_"
CONFIG_VARIABLE = "FERRY_CONFIG"

_SERVICES = ("server", "trainer", "console")  # what begins with one of these is for that program to judge


def config_file() -> Path:
    """The config file: `FERRY_CONFIG`, else `config.toml` in the user's configuration folder."""
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else user_folder("config") / "config.toml"


def _as_seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_as_seconds), Field(gt=0, le=LONGEST)]


class Settings(BaseModel):
    """What `FERRY_*` variables and the config file (the same names, in lower case) may say."""

    model_config = ConfigDict(extra="ignore", validate_default=False)

    store: str = Field(default_factory=default_store)
    kafka: str = "127.0.0.1:9092"
    cache: Path = Field(default_factory=lambda: user_folder("cache"))
    state: Path = Field(default_factory=lambda: user_folder("state"))
    signing_key: Path | None = None
    signing_passphrase: SecretStr | None = None
    trusted_keys: Path | None = None
    signatures: SignaturePolicy | None = None
    ratchet: bool | None = None
    fresh_for: Seconds | None = None


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(**flags: Any) -> Settings:
    """The settings in force; flags that are None were not given.

    Raises:
        UsageError: the config file or a value in it is not of the form it must have.
    """
    return load_settings_of(Settings, flags)


def load_settings_of(kind: type[SettingsT], flags: Mapping[str, Any]) -> SettingsT:
    """The settings of a service in force; flags that are None or empty were not given.

    Raises:
        UsageError: as `load_settings`.
    """
    sources = [
        _file_values(kind),
        _environment_values(kind),
        {name: value for name, value in flags.items() if value not in (None, ())},
    ]
    values = {name: value for source in sources for name, value in source.items()}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UsageError(_wrong_value(error, sources)) from error
    except FerryError as error:  # a validator's own words
        raise UsageError(f"a setting is wrong: {error}") from error


def _file_values(kind: type[Settings]) -> dict[str, Any]:
    file = config_file()
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        if not os.environ.get(CONFIG_VARIABLE):
            return {}
        raise UsageError(
            f"{CONFIG_VARIABLE} names {file}, and there is no such file; write it, or unset the variable"
        ) from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}") from error
    for name in values:
        _require_known(name, kind, file)
    return values


def _require_known(name: str, kind: type[Settings], file: Path) -> None:
    known = kind.model_fields
    service = next((prefix for prefix in _SERVICES if name.startswith(f"{prefix}_")), None)
    if name in known or (service and not any(field.startswith(f"{service}_") for field in known)):
        return
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it may say {', '.join(sorted(known))}"
    raise UsageError(f"{file} says {name!r}, which is no setting; {hint}")


def _environment_values(kind: type[Settings]) -> dict[str, str]:
    found = {name: os.environ.get(PREFIX + name.upper(), "") for name in kind.model_fields}
    return {name: value for name, value in found.items() if value}  # empty is as good as unset


def _wrong_value(error: ValidationError, sources: list[dict[str, Any]]) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    name = str(fault["loc"][0]) if fault["loc"] else "a setting"
    spellings = (f"{name!r} in {config_file()}", PREFIX + name.upper(), f"the flag for {name!r}")
    given = [spelling for spelling, source in zip(spellings, sources, strict=True) if name in source]
    return f"{given[-1] if given else name} is wrong: {fault['msg']}"
