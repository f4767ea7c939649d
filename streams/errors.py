"""What can go wrong with a stream, as branches of the registry's tree.

FerryError
├── NotFoundError
│   └── UnknownTopicError       the broker has no such topic
├── UnreachableError
│   ├── BrokerUnreachableError  no broker answers
│   └── BrokerRefusedError      the broker answers that it will not
└── MalformedRecordError        bytes that are no record of the kind that was expected
"""

from __future__ import annotations

from ferryline.registry.errors import FerryError, NotFoundError, UnreachableError

__all__ = ["BrokerRefusedError", "BrokerUnreachableError", "MalformedRecordError", "UnknownTopicError"]


class UnknownTopicError(NotFoundError):
    """The topic does not exist on this cluster."""

    def __init__(self, topic: str, bootstrap: str) -> None:
        super().__init__(
            f"Kafka at {bootstrap} has no topic {topic!r}; create it with "
            f"`kafka-topics.sh --bootstrap-server {bootstrap} --create --topic {topic}`, "
            "or start its producer (`ferry-feed` creates the example topics)"
        )
        self.topic = topic


class BrokerUnreachableError(UnreachableError):
    """No broker answers; a retry may succeed."""

    def __init__(self, bootstrap: str, cause: str = "") -> None:
        why = f" ({cause})" if cause else ""
        super().__init__(
            f"Kafka at {bootstrap} cannot be reached{why}; start it (`ferry-stack up`), "
            "or name another with --kafka or FERRY_KAFKA"
        )


class BrokerRefusedError(UnreachableError):
    """The broker answered that it will not do what was asked."""


class MalformedRecordError(FerryError):
    """A record on an output topic is not what its codec writes."""
