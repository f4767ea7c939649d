"""What can go wrong in the trainer, as branches of the registry's tree.

FerryError
├── UsageError
│   ├── StateUnusableError      the state file is corrupt, foreign, or of another pipeline
│   ├── StateInUseError         another trainer holds the state
│   └── OffsetsLostError        the topic no longer has the records where the state ends
└── StoreError
    └── PublishTimeoutError     the last version was not published before the program had to end
"""

from __future__ import annotations

from ferryline.registry.errors import StoreError, UsageError

__all__ = ["OffsetsLostError", "PublishTimeoutError", "StateInUseError", "StateUnusableError"]


class StateUnusableError(UsageError):
    """The state file cannot be continued from; it is left where it is."""


class StateInUseError(UsageError):
    """Two trainers of one pipeline would learn each record twice."""


class OffsetsLostError(UsageError):
    """The state ends beyond the end of the topic, so this is another topic of the same name."""


class PublishTimeoutError(StoreError):
    """The store did not take the last version in time; the state has all that was learnt."""
