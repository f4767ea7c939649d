"""The policies, rendered for one registry: templates in `policies/`, in the language of every S3 service.

What a policy can forbid differs between services. Amazon S3 knows the condition key `s3:if-none-match`, so
there a trainer can be kept to put-if-absent; MinIO (the pinned one included) refuses a policy that names it,
and a trainer that may add to a log may overwrite in it. `docs/access.md` says what protects the log there.
"""

from __future__ import annotations

import re
from enum import StrEnum
from importlib import resources
from typing import Any

import orjson

from ferryline.deploy.access.location import Location
from ferryline.registry.errors import UsageError
from ferryline.registry.names import is_name
from ferryline.registry.roles import Role

Policy = dict[str, Any]


class Service(StrEnum):
    """Which dialect of policies the service speaks."""

    MINIO = "minio"
    AWS = "aws"


# statements whose writes are all put-if-absent, and those that list
_ADDING = {"AddToTheLogs", "RecordRefusals"}
_LISTING = {"FindModels", "FindEverything", "FindTimelines"}
_CONSUMER = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9]|[a-z0-9._-]{0,61}\*)?")


def render(
    role: Role,
    location: Location,
    *,
    service: Service = Service.MINIO,
    model: str | None = None,
    consumer: str | None = None,
    record_refusals: bool = False,
    pipeline: str | None = None,
) -> Policy:
    """The policy of `role` in the registry at `location`.

    Args:
        role: who it is for.
        location: where the registry lies.
        service: the dialect; MinIO's is understood everywhere, Amazon's forbids more.
        model: the one model a trainer may add to; None allows all.
        consumer: the id in a consumer's heartbeat; `grpc-web1-*` stands for all that begin so.
        record_refusals: whether a consumer may add to the ledger of refusals.
        pipeline: the pipeline whose timelines a consumer, the scoring job, keeps; None for none.

    Raises:
        UsageError: a consumer without an id, an id that can be none, or an option of another role.
    """
    _require_fitting(role, model=model, consumer=consumer, record_refusals=record_refusals)
    _require_job(role, pipeline)
    values = {
        "<bucket>": location.bucket,
        "<prefix>": location.prefix,
        "<model>": model or "*",
        "<consumer>": consumer or "",
        "<pipeline>": pipeline or "",
    }
    policy = _filled(role, values)
    if record_refusals:
        policy["Statement"] += _filled("refusals", values)["Statement"]
    if pipeline:
        policy["Statement"] += _filled("timelines", values)["Statement"]
    return _for_amazon(policy) if service is Service.AWS else policy


def _require_fitting(role: Role, *, model: str | None, consumer: str | None, record_refusals: bool) -> None:
    if (consumer is not None or record_refusals) and role is not Role.CONSUMER:
        raise UsageError(f"--consumer and --record-refusals are for consumers, not for a {role}")
    if model is not None and role is not Role.TRAINER:
        raise UsageError(f"--model is for trainers, not for a {role}")
    if model is not None and not is_name(model):
        raise UsageError(f"{model!r} cannot name a model")
    if role is Role.CONSUMER and not _CONSUMER.fullmatch(consumer or ""):
        raise UsageError(
            "a consumer's policy needs --consumer with the id in its heartbeat, as `ferry status` shows it; "
            "'grpc-web1-*' stands for all that begin so"
        )


def _require_job(role: Role, pipeline: str | None) -> None:
    if pipeline is None:
        return
    if role is not Role.CONSUMER:
        raise UsageError(f"--pipeline is for the scoring job, a consumer, and not for a {role}")
    if not is_name(pipeline):
        raise UsageError(f"{pipeline!r} cannot name a pipeline")


def _filled(name: str, values: dict[str, str]) -> Policy:
    text = (resources.files("ferryline.deploy.access") / "policies" / f"{name}.json").read_text("utf-8")
    policy: Policy = orjson.loads(text)
    return {**policy, "Statement": [_replaced(statement, values) for statement in policy["Statement"]]}


def _replaced(node: Any, values: dict[str, str]) -> Any:
    if isinstance(node, str):
        for mark, value in values.items():
            node = node.replace(mark, value)
        return node
    if isinstance(node, list):
        return [_replaced(item, values) for item in node]
    return {key: _replaced(item, values) for key, item in node.items()}


def _for_amazon(policy: Policy) -> Policy:
    return {**policy, "Statement": [_statement_for_amazon(each) for each in policy["Statement"]]}


def _statement_for_amazon(statement: Policy) -> Policy:
    if statement["Sid"] in _ADDING:
        return {**statement, "Condition": {"Null": {"s3:if-none-match": "false"}}}
    if statement["Sid"] in _LISTING:
        # a read of a missing object answers 404 only to who may list, and a read names no prefix
        return {**statement, "Condition": {"StringLikeIfExists": statement["Condition"]["StringLike"]}}
    return statement
