"""The output formats, apart from what prints them: `--help` must not wait for a table library."""

from __future__ import annotations

from enum import StrEnum


class OutputFormat(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
