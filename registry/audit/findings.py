"""What an audit found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; only damage makes `ferry verify` fail."""

    DAMAGED = "damaged"  # a promise of the registry is broken
    WARNING = "warning"  # nothing that serves is touched
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: under which key, what, and what to do about it."""

    severity: Severity
    where: str
    what: str
    remedy: str


@dataclass(slots=True)
class Audit:
    """All that was found, and how much was looked at. `bytes` are those of the files."""

    findings: list[Finding] = field(default_factory=list)
    models: int = 0
    versions: int = 0
    entries: int = 0
    files: int = 0
    bytes: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    @property
    def damaged(self) -> list[Finding]:
        """The findings that break a promise."""
        return [finding for finding in self.findings if finding.severity is Severity.DAMAGED]

    def add(self, severity: Severity, where: str, what: str, remedy: str) -> None:
        """Put a finding down."""
        self.findings.append(Finding(severity, where, what, remedy))


BACKUP = "restore it from a backup"
PUBLISH_AGAIN = "publish the same file again: that mends it for every version that has it"
