"""What can go wrong in the trainer, as branches of the registry's tree.

FerryError
├── UsageError
│   ├── StateUnusableError      the state file is corrupt, foreign, or of another pipeline
│   ├── StateInUseError         another trainer holds the state
│   ├── StateUnwritableError    the disk does not take the state
│   └── OffsetsLostError        the topic ends before what was read, and no id tells why
├── PublisherEndedError         the thread that publishes is gone
└── StoreError
    └── PublishTimeoutError     the last version was not published before the program had to end
"""

from __future__ import annotations

from ferryline.registry.errors import FerryError, StoreError, UsageError

__all__ = [
    "OffsetsLostError",
    "PublishTimeoutError",
    "PublisherEndedError",
    "StateInUseError",
    "StateUnusableError",
    "StateUnwritableError",
]


class StateUnusableError(UsageError):
    """The state file cannot be continued from; it is left where it is."""


class StateInUseError(UsageError):
    """Two trainers of one pipeline would learn each record twice."""


class StateUnwritableError(UsageError):
    """The state cannot be written now; what was learnt since the last one that was is in memory only."""


class OffsetsLostError(UsageError):
    """The topic ends before what was read, and no id tells whether it is another topic of the same name."""


class PublishTimeoutError(StoreError):
    """The last version was not published in time; the state has all that was learnt."""


class PublisherEndedError(FerryError):
    """The thread that publishes ended, so nothing would ever be published again; the state is whole."""
