"""`ferry verify`: walks every log and every file, and tells all that is wrong. It never stops at the first fault.

What was written while it walks is not looked at: the hint and the heartbeats are read before the logs are
listed, so what they claim must be in the listing, or has been lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from registry import keys
from registry.audit_logs import ChannelAudit, audit_versions, holes
from registry.catalogue import Registry
from registry.contents import Contents, sort_contents
from registry.digests import digest_of
from registry.documents import ChannelEntry, Heartbeat, Manifest
from registry.errors import NotFoundError, RefusedError, StoreUnreachableError, UntrustedAnswerError
from registry.findings import Finding, Severity
from registry.garbage import Mark
from registry.hints import Hint
from registry.parallel import in_order
from registry.refusals import RefusalRecord
from registry.schema import Document
from registry.stores.base import Listed, ObjectMissingError
