"""A store on any S3 service, by minio-py.

Two facts about minio-py 7.2 shape this file. `put_object` turns an `If-None-Match` header into user
metadata, so that a put-if-absent silently becomes an overwrite; `_put_object` sends the header, which a
wire-level test proves. And its default pool retries a PUT on 5xx, whereupon a writer meets its own object
as "already there"; so retries are off here, and the log decides (`ferryline.registry.log`).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.credentials.providers import Provider, StaticProvider
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from ferryline.registry.errors import MissingRightError, StoreDeniedError, StoreUnreachableError
from ferryline.registry.stores.base import Listed, ObjectMissingError, Stored, require_key, require_size
from ferryline.registry.stores.s3_pool import WatchedPool, read_watched

CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 15.0

_MISSING = "NoSuchKey"
_PRESENT = "PreconditionFailed"
_CONFLICTING = "ConditionalRequestConflict"
_UNKNOWN = "NotImplemented"
_NO_RIGHT = "AccessDenied"
_EXPIRED = {"ExpiredToken", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired"}
_DENIED = {
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "InvalidAccessKeyId",
    "InvalidBucketName",
    "NoSuchBucket",
    "PermanentRedirect",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_REMEDIES = {
    "AuthorizationHeaderMalformed": "name the bucket's region with region= in the store's URL",
    "NoSuchBucket": "make the bucket, or name another in FERRY_STORE",
    "PermanentRedirect": "name the bucket's region with region= in the store's URL, or its own endpoint",
    "RequestTimeTooSkewed": "set this machine's clock",
}
_CHECK_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
_TLS_WANTED = "HTTP request to an HTTPS server"

_NOT_MODIFIED = 304

_Headers = dict[str, str | list[str] | tuple[str]]  # minio-py's own type


class S3Store:
    """Objects of one bucket below a prefix.

    Args:
        bucket: the bucket's name; it must exist.
        prefix: put before every key, without slashes at its ends; may be empty.
        endpoint: host and port.
        secure: whether to speak TLS.
        region: sent in signatures; naming it saves a request at the start.
        credentials: where the keys come from; None reads `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str,
        secure: bool = True,
        region: str = "us-east-1",
        credentials: Provider | None = None,
    ) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/") + f" at {endpoint}"
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._pool = WatchedPool(
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT), maxsize=8, retries=False
        )
        self._client = Minio(
            endpoint=endpoint,
            secure=secure,
            region=region,
            credentials=credentials or _credentials_from_environment(),
            http_client=self._pool,
        )

    def get(self, key: str) -> Stored:
        return self._get(key, {})

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        try:
            return self._get(key, {"If-None-Match": etag})
        except _NotModifiedError:
            return None

    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            with self._translated("PutObject", key):
                self._client._put_object(self._bucket, self._name(key), data, headers={"If-None-Match": "*"})  # noqa: SLF001 - see the module docstring
        except _PreconditionFailedError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        with self._translated("PutObject", key):
            self._client._put_object(self._bucket, self._name(key), data, headers=None)  # noqa: SLF001 - one request, where put_object makes a thread pool

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        # a proxy that compresses makes a tag weak, and a weak one never matches (RFC 9110, 13.1.1)
        condition: dict[str, str | list[str] | tuple[str]] = {"If-Match": etag.removeprefix("W/")}
        try:
            with self._translated("PutObject", key):
                self._client._put_object(self._bucket, self._name(key), data, headers=condition)  # noqa: SLF001 - see the module docstring
        except (_PreconditionFailedError, _ConflictingError, ObjectMissingError):
            return False
        except _UnknownConditionError:
            self.put(key, data)
        return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        with self._translated("ListBucket", prefix):
            for item in self._client.list_objects(
                self._bucket,
                prefix=self._prefix + prefix,
                recursive=True,
                start_after=self._prefix + after if after else None,
            ):
                key = (item.object_name or "").removeprefix(self._prefix)
                yield Listed(key, item.size or 0, item.last_modified or datetime.fromtimestamp(0, UTC))

    def folders(self, prefix: str) -> Iterator[str]:
        below = self._prefix + prefix
        with self._translated("ListBucket", prefix):
            found = self._client.list_objects(self._bucket, prefix=below)
            names = [(item.object_name or "").removeprefix(below) for item in found if item.is_dir]
        # S3 orders "a-b/" before "a/", for it sees the slash
        yield from sorted(name.rstrip("/") for name in names)

    def delete(self, key: str) -> None:
        with self._translated("DeleteObject", key):
            self._client.remove_object(self._bucket, self._name(key))

    def now(self) -> datetime:
        return self._pool.now()

    def _name(self, key: str) -> str:
        return self._prefix + require_key(key)

    def _get(self, key: str, headers: _Headers) -> Stored:
        with self._translated("GetObject", key):
            response = self._client.get_object(self._bucket, self._name(key), request_headers=headers)
            try:
                require_size(key, int(response.headers.get("content-length", 0)))
                # urllib3 raises when the body is shorter than the announced length
                return Stored(read_watched(response), response.headers.get("etag", ""))
            finally:
                response.close()
                response.release_conn()

    @contextmanager
    def _translated(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise self._meaning(error, action, key) from error
        except (ServerError, InvalidResponseError) as error:
            if getattr(error, "status_code", None) == _NOT_MODIFIED:
                raise _NotModifiedError from error
            raise StoreUnreachableError(self._nonsense(error)) from error
        except (ParseError, ValueError) as error:  # minio-py reads answers as XML and checks no more of them
            raise StoreUnreachableError(
                f"{self.url} gives answers that no S3 service gives ({error}); is the endpoint right?"
            ) from error
        except (urllib3.exceptions.HTTPError, MinioException, OSError) as error:
            raise StoreUnreachableError(self._no_answer(error)) from error

    def _meaning(self, error: S3Error, action: str, key: str) -> Exception:
        if error.code == _MISSING:
            return ObjectMissingError(key, self.url)
        if error.code == _PRESENT:
            return _PreconditionFailedError()
        if error.code == _NO_RIGHT:
            return MissingRightError(self.url, f"s3:{action} on {self._bucket}/{self._prefix}{key}")
        if error.code in _EXPIRED:
            return StoreDeniedError(
                f"{self.url} refuses: the credentials have expired or were withdrawn ({error.code}); "
                f"get new ones, and {_CHECK_CREDENTIALS}"
            )
        if error.code in _DENIED:
            remedy = _REMEDIES.get(error.code, _CHECK_CREDENTIALS)
            message = (error.message or "").rstrip(".")
            return StoreDeniedError(f"{self.url} refuses: {error.code} ({message}); {remedy}")
        kind = {_CONFLICTING: _ConflictingError, _UNKNOWN: _UnknownConditionError}.get(
            error.code or "", StoreUnreachableError
        )
        return kind(f"{self.url} answered {error.code}: {error.message}")

    def _nonsense(self, error: ServerError | InvalidResponseError) -> str:
        if _TLS_WANTED in str(error):
            return f"{self.url} speaks TLS and was asked without; write endpoint=https://… in FERRY_STORE"
        return f"{self.url} answered with a fault: {error}"

    def _no_answer(self, error: Exception) -> str:
        fault = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        if isinstance(fault, ssl.SSLCertVerificationError):
            return (
                f"{self.url} shows a certificate that is not trusted here ({fault.verify_message}); "
                "trust its authority with SSL_CERT_FILE"
            )
        if isinstance(fault, ssl.SSLError):
            return (
                f"{self.url} cannot be spoken to over TLS ({fault.reason or fault}); "
                "if it speaks none, write endpoint=http://… in FERRY_STORE"
            )
        return f"{self.url} cannot be reached ({_brief(error)}); is the server up, and is FERRY_STORE right?"


class _NotModifiedError(Exception):
    """The object still has the tag that was asked about."""


class _ConflictingError(StoreUnreachableError):
    """Somebody else was writing the object at the same moment; nothing was written by this request."""


class _UnknownConditionError(StoreUnreachableError):
    """The service knows no such condition, and did nothing."""


class _PreconditionFailedError(Exception):
    """What a write was conditional on does not hold."""


def _credentials_from_environment() -> Provider | None:
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        return None  # anonymous: some buckets are public to read
    return StaticProvider(access, secret, os.environ.get("AWS_SESSION_TOKEN"))


def _brief(error: BaseException) -> str:
    return str(error).rsplit(">: ", 1)[-1] or type(error).__name__
