"""Settings that every program shares: flags first, then `FERRY_*` variables, then a config file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from registry.errors import UsageError

APPLICATION = "modelferry"


def config_file() -> Path:
    """The config file: `FERRY_CONFIG`, else `config.toml` in the user's configuration folder."""
    named = os.environ.get("FERRY_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir(APPLICATION)) / "config.toml"


def default_store() -> str:
    """A folder under the user's data directory, so that nothing else need be installed."""
    return (Path(platformdirs.user_data_dir(APPLICATION)) / "registry").absolute().as_uri()


class Settings(BaseSettings):
    """What `FERRY_*` variables and the config file (the same names, in lower case) may say."""

    model_config = SettingsConfigDict(env_prefix="FERRY_", extra="ignore")

    store: str = Field(default_factory=default_store)
    kafka: str = "127.0.0.1:9092"
    cache: Path = Field(default_factory=lambda: Path(platformdirs.user_cache_dir(APPLICATION)))
    state: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir(APPLICATION)))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the config file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


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
    try:
        return kind(**{name: value for name, value in flags.items() if value not in (None, ())})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{config_file()} is not TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{config_file()} cannot be read: {error.strerror}") from error
    except ValueError as error:  # pydantic's ValidationError is one
        raise UsageError(f"a setting is wrong: {error}") from error
