"""Makes a user with one policy on MinIO, through its admin interface."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from hashlib import sha256

import orjson
import urllib3
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from ferryline.deploy.access.location import Location
from ferryline.deploy.access.policies import Policy
from ferryline.deploy.stack.addresses import Credentials
from ferryline.registry.errors import StoreDeniedError, StoreUnreachableError

_TIMEOUT = urllib3.Timeout(connect=3.0, read=15.0)


@dataclass(frozen=True, slots=True)
class Grant:
    """A user that was made.

    Attributes:
        policy: the name its policy has on the server.
        credentials: what its programs sign in with.
    """

    policy: str
    credentials: Credentials = field(repr=False)


def grant(
    location: Location, admin: Credentials, user: str, policy: Policy, *, secret: str | None = None
) -> Grant:
    """Give `user` exactly `policy` on the MinIO at `location`; the user is made, or gets a new secret.

    Args:
        location: says which server.
        admin: credentials that may administer it.
        user: the access key of the user.
        policy: what it may do.
        secret: its secret key; None makes one.

    Raises:
        StoreDeniedError: `admin` may not, or the server refuses the user's name, secret or policy.
        StoreUnreachableError: it does not answer.
    """
    credentials = Credentials(user, secret or secrets.token_urlsafe(30))
    # named by what it says, so that no grant changes what another user may do
    name = f"ferry-{user}-{sha256(orjson.dumps(policy)).hexdigest()[:8]}"
    client = _client(location, admin)
    try:
        client.policy_add(name, policy=policy)
        client.user_add(user, credentials.secret_key)
        client.policy_set(name, user=user)
    except MinioAdminException as error:
        raise StoreDeniedError(f"{location.endpoint} made no user {user}: {_reason(error)}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnreachableError(f"{location.endpoint} cannot be reached ({error})") from error
    finally:
        client._http.clear()  # noqa: SLF001 - the client has no close, and leaves its sockets open
    return Grant(name, credentials)


def _client(location: Location, admin: Credentials) -> MinioAdmin:
    return MinioAdmin(
        endpoint=location.endpoint,
        credentials=StaticProvider(admin.access_key, admin.secret_key),
        secure=location.secure,
        http_client=urllib3.PoolManager(timeout=_TIMEOUT, retries=False),
    )


def _reason(error: MinioAdminException) -> str:
    _, _, body = str(error).partition("Body: ")
    try:
        return str(orjson.loads(body)["Message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return str(error)
