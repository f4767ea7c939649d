"""The addresses of a stack, and the environment that tells programs about them."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ferryline.deploy.stack.errors import StackUsageError

KAFKA_VARIABLE = "FERRY_KAFKA"
STORE_VARIABLE = "FERRY_STORE"
FLINK_VARIABLE = "FERRY_FLINK"
METRICS_VARIABLE = "FERRY_FLINK_METRICS"

MODELS_BUCKET = "models"
FLINK_BUCKET = "flink"


@dataclass(frozen=True)
class Addresses:
    """Where the parts of a stack are reached; a part that does not run has an empty address.

    Attributes:
        kafka: bootstrap server as host:port.
        store: registry store as a URL, `s3://models?endpoint=http://127.0.0.1:9000` or `file:///folder`.
        flink: URL of the job manager's REST interface.
        flink_metrics: URL of the task manager's metrics, for Prometheus.
        access_key: user of the object store.
        secret_key: its password.
        flink_home: the Flink distribution whose `bin/flink` talks to this cluster.
        flink_environ: variables that `bin/flink` needs for this cluster.
    """

    kafka: str = ""
    store: str = ""
    flink: str = ""
    flink_metrics: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    flink_home: Path | None = None
    flink_environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def environ(self) -> dict[str, str]:
        """The variables Ferryline's programs read, for the environment of a child process."""
        every = {
            KAFKA_VARIABLE: self.kafka,
            STORE_VARIABLE: self.store,
            FLINK_VARIABLE: self.flink,
            METRICS_VARIABLE: self.flink_metrics,
            **credentials_environ(Credentials(self.access_key, self.secret_key)),
        }
        return {name: value for name, value in every.items() if value}

    def exports(self) -> str:
        """The same as lines for a POSIX shell."""
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environ().items())


@dataclass(frozen=True)
class Credentials:
    """User and password of the object store."""

    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Credentials":
        """The credentials every S3 tool reads, else MinIO's well-known ones: only this machine is let in.

        Raises:
            StackUsageError: MinIO would refuse them.
        """
        access_key = environ.get("AWS_ACCESS_KEY_ID") or "minioadmin"
        secret_key = environ.get("AWS_SECRET_ACCESS_KEY") or "minioadmin"
        if len(access_key) < 3 or len(secret_key) < 8:  # noqa: PLR2004 - MinIO's own limits
            raise StackUsageError(
                "MinIO wants at least 3 characters in AWS_ACCESS_KEY_ID and 8 in AWS_SECRET_ACCESS_KEY: "
                "set longer ones, or unset both"
            )
        return cls(access_key, secret_key)


def credentials_environ(credentials: Credentials) -> dict[str, str]:
    """The variables every S3 tool reads credentials from."""
    return {"AWS_ACCESS_KEY_ID": credentials.access_key, "AWS_SECRET_ACCESS_KEY": credentials.secret_key}


@dataclass(frozen=True)
class ObjectStore:
    """An S3 service: its endpoint URL, empty for the client's default, and how to sign in."""

    endpoint: str
    credentials: Credentials


def store_url(port: int) -> str:
    """The registry's URL on this machine's MinIO."""
    return f"s3://{MODELS_BUCKET}?endpoint=http://127.0.0.1:{port}"


def store_endpoint(url: str) -> str | None:
    """The S3 endpoint of a store URL; None for a folder.

    Raises:
        StackUsageError: the URL is neither `s3://` nor `file://`.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return None
    if parts.scheme != "s3" or not parts.netloc:
        raise StackUsageError(
            f"{STORE_VARIABLE}={url} is no store: write s3://bucket?endpoint=http://host:port or file:///folder"
        )
    return parse_qs(parts.query).get("endpoint", [""])[0]


def default_environ() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)
