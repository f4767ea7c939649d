"""What Kafka's client raises, as this project's errors.

FerryError
├── ConflictError            another replay of the same dead letters began
└── UnreachableError
    ├── BrokerRefusedError   the broker answers that it will not
    └── BrokerUnreachableError
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.errors import (
    AuthorizationError,
    InvalidProducerEpochError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFencedError,
)

from ferryline.registry.errors import ConflictError
from ferryline.streams.errors import BrokerRefusedError, BrokerUnreachableError
from ferryline.streams.kafka import brief

__all__ = ["kafka_faults"]


@contextmanager
def kafka_faults(bootstrap: str) -> Iterator[None]:
    """Translate what kafka-python raises in the block.

    Raises:
        ConflictError: another producer took over the transactional id.
        BrokerRefusedError: rights are missing, or a record is too large after all.
        BrokerUnreachableError: anything else, which a later attempt may not meet.
    """
    try:
        yield
    except (ProducerFencedError, InvalidProducerEpochError) as error:
        raise ConflictError(
            "another replay of these dead letters began, and this one gave way; what it had committed "
            "stays. Let that one end, then run this command again"
        ) from error
    except (AuthorizationError, MessageSizeTooLargeError) as error:
        raise BrokerRefusedError(
            f"Kafka at {bootstrap} refuses: {brief(error)}; check this client's rights on the source topic, "
            "the replays' ledger, the consumer group and the transactional id (docs/dead-letters.md)"
        ) from error
    except KafkaError as error:
        raise BrokerUnreachableError(bootstrap, brief(error)) from error
