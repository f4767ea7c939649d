"""MinIO: the object store of models and checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from ferryline.deploy.stack import http_probe
from ferryline.deploy.stack.addresses import FLINK_BUCKET, MODELS_BUCKET, Credentials
from ferryline.deploy.stack.launch import Launch
from ferryline.deploy.stack.ports import LOOPBACK, Listener

NAME = "minio"
API = Listener("minio", "MinIO", default=9000, flag="--minio-port", variable="FERRY_STORE")

_DEADLINE_S = 120.0


def prepare(
    *, port: int, folder: Path, binary: Path, credentials: Credentials, environ: Mapping[str, str]
) -> Launch:
    """Make MinIO's folders and say how to start it."""
    data, certificates = folder / "data", folder / "certs"
    for each in (data, certificates):
        each.mkdir(mode=0o700, exist_ok=True)
    endpoint = f"http://{LOOPBACK}:{port}"
    server = [str(binary), "server", str(data)]
    return Launch(
        name=NAME,
        # an empty folder of certificates: the user's own would turn the endpoint to https
        command=[*server, "--address", f"{LOOPBACK}:{port}", "--certs-dir", str(certificates)],
        environ=server_environ(environ, credentials),
        folder=folder,
        address=endpoint,
        ready=lambda: is_ready(endpoint),
        deadline_s=_DEADLINE_S,
    )


def server_environ(environ: Mapping[str, str], credentials: Credentials) -> dict[str, str]:
    """The environment of the server; settings of some other MinIO are left out."""
    clean = {name: value for name, value in environ.items() if not name.startswith("MINIO_")}
    return {
        **clean,
        "MINIO_ROOT_USER": credentials.access_key,
        "MINIO_ROOT_PASSWORD": credentials.secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }


def is_ready(endpoint: str) -> bool:
    """Whether MinIO at an endpoint URL says that it can serve."""
    answer = http_probe.get(f"{endpoint}/minio/health/ready")
    return answer is not None and answer.is_success


def speaks_http(endpoint: str) -> bool:
    """Whether anything at an endpoint URL answers; a refusal for want of a signature is an answer too."""
    answer = http_probe.get(endpoint)
    return answer is not None and not answer.is_server_error


def create_buckets(endpoint: str, credentials: Credentials) -> None:
    """Create the buckets of models and checkpoints where they are missing."""
    import urllib3  # what minio talks with; imported where minio is
    from minio import Minio  # slow to import, needed by `up` alone

    # MinIO says that it is ready a moment before it takes a bucket
    patience = urllib3.Retry(total=10, backoff_factor=0.2, status_forcelist=[503], allowed_methods=None)
    connections = urllib3.PoolManager(timeout=10.0, retries=patience)
    try:
        client = Minio(
            endpoint.removeprefix("http://"),
            access_key=credentials.access_key,
            secret_key=credentials.secret_key,
            secure=False,
            region="us-east-1",
            http_client=connections,
        )
        for bucket in (MODELS_BUCKET, FLINK_BUCKET):
            if not client.bucket_exists(bucket_name=bucket):
                client.make_bucket(bucket_name=bucket)
    finally:
        connections.clear()
