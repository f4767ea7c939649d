"""Parts that run elsewhere: the environment names them, and the stack does not start its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ferryline.deploy.stack.addresses import (
    FLINK_VARIABLE,
    KAFKA_VARIABLE,
    STORE_VARIABLE,
    store_endpoint,
    store_url,
)
from ferryline.deploy.stack.errors import PartUnreachableError
from ferryline.deploy.stack.parts import flink, kafka, minio
from ferryline.deploy.stack.ports import LOOPBACK

_AMAZON = "https://s3.amazonaws.com"


@dataclass(frozen=True)
class External:
    """Addresses of parts that run elsewhere; empty for a part that is the stack's own."""

    kafka: str = ""
    store: str = ""
    flink: str = ""

    def address_of(self, part: str) -> str:
        """The address of a part by its name."""
        return {"kafka": self.kafka, "minio": self.store, "flink": self.flink}[part]

    def answers(self, part: str) -> bool:
        """Whether a part that runs elsewhere answers."""
        probes = {
            "kafka": lambda: kafka.answers(self.kafka),
            "minio": lambda: _store_answers(self.store),
            "flink": lambda: flink.answers(self.flink),
        }
        return probes[part]()


def own_addresses(ports: Mapping[str, int]) -> External:
    """The addresses that the stack's own parts have or had last."""

    def when(name: str, address: str) -> str:
        return address if name in ports else ""

    return External(
        kafka=when(kafka.BROKER.name, f"{LOOPBACK}:{ports.get(kafka.BROKER.name)}"),
        store=when(minio.API.name, store_url(ports.get(minio.API.name, 0))),
        flink=when(flink.REST.name, f"http://{LOOPBACK}:{ports.get(flink.REST.name)}"),
    )


def external_parts(environ: Mapping[str, str], ports: Mapping[str, int]) -> External:
    """What the environment says runs elsewhere.

    The stack's own addresses do not count: a shell that ran `eval "$(ferry-stack env)"` has them too.

    Raises:
        StackUsageError: FERRY_STORE is no store.
    """
    own = own_addresses(ports)

    def foreign(variable: str, address: str) -> str:
        given = environ.get(variable, "").strip()
        return "" if given == address else given

    store = foreign(STORE_VARIABLE, own.store)
    if store:
        store_endpoint(store)
    return External(
        kafka=foreign(KAFKA_VARIABLE, own.kafka),
        store=store,
        flink=foreign(FLINK_VARIABLE, own.flink).rstrip("/"),
    )


def check_external(external: External, parts: frozenset[str]) -> None:
    """Ask every external part among those wanted.

    Raises:
        PartUnreachableError: one does not answer.
    """
    titles = {
        "kafka": ("Kafka", KAFKA_VARIABLE),
        "minio": ("the store", STORE_VARIABLE),
        "flink": ("Flink", FLINK_VARIABLE),
    }
    for part in sorted(parts):
        address = external.address_of(part)
        if address and not external.answers(part):
            title, variable = titles[part]
            raise PartUnreachableError(title, variable, address)


def _store_answers(url: str) -> bool:
    endpoint = store_endpoint(url)
    if endpoint is None:
        folder = Path(unquote(urlsplit(url).path))
        # the registry makes its folder; it cannot make the disk
        return any(each.is_dir() for each in (folder, *folder.parents[:-1]))
    return minio.speaks_http(endpoint or _AMAZON)
