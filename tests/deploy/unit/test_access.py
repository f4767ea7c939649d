from __future__ import annotations

from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from ferryline.deploy.access.cli import app
from ferryline.deploy.access.location import Location
from ferryline.deploy.access.policies import Policy, Service, render
from ferryline.registry.errors import UsageError
from ferryline.registry.roles import Role

STORE = "s3://models/team/a?endpoint=http://127.0.0.1:9000"
LOCATION = Location.of(STORE)
ARN = "arn:aws:s3:::models/team/a/"


def granted(policy: Policy, action: str) -> set[str]:
    return {
        resource
        for statement in policy["Statement"]
        if action in statement["Action"]
        for resource in statement["Resource"]
    }


def strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for item in node.values() for text in strings(item)]
    return [text for item in node for text in strings(item)] if isinstance(node, list) else [str(node)]


def test_a_consumer_writes_and_deletes_its_heartbeat_and_nothing_else() -> None:
    policy = render(Role.CONSUMER, LOCATION, consumer="grpc-1")
    assert granted(policy, "s3:PutObject") == {f"{ARN}consumers/grpc-1.json"}
    assert granted(policy, "s3:DeleteObject") == {f"{ARN}consumers/grpc-1.json"}
    assert granted(policy, "s3:GetObject") == {f"{ARN}models/*", f"{ARN}blobs/*", f"{ARN}hint.json"}


def test_a_consumer_may_be_let_write_the_ledger_too() -> None:
    policy = render(Role.CONSUMER, LOCATION, consumer="grpc-*", record_refusals=True)
    assert granted(policy, "s3:PutObject") == {f"{ARN}consumers/grpc-*.json", f"{ARN}models/*/refusals/*"}


@pytest.mark.parametrize("service", Service)
def test_a_scoring_job_may_be_let_keep_the_timelines_of_its_pipeline(service: Service) -> None:
    policy = render(Role.CONSUMER, LOCATION, consumer="flink-*", pipeline="digits", service=service)
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert f"{ARN}jobs/digits/*" in granted(policy, action)
    assert not any("<" in text for text in strings(policy))
    assert f"{ARN}jobs/digits/*" not in granted(render(Role.CONSUMER, LOCATION, consumer="x"), "s3:GetObject")


def test_a_trainer_deletes_nothing_of_the_registry() -> None:
    policy = render(Role.TRAINER, LOCATION)
    assert granted(policy, "s3:DeleteObject") == {f"{ARN}doctor/*", f"{ARN}garbage/sha256/*"}
    assert not any("consumers" in text for text in strings(policy))


def test_a_trainer_may_be_kept_to_one_model() -> None:
    written = granted(render(Role.TRAINER, LOCATION, model="digits"), "s3:PutObject")
    assert {text for text in written if "/models/" in text} == {
        f"{ARN}models/digits/{kind}/*" for kind in ("versions", "channels", "refusals")
    }


def test_amazon_keeps_the_logs_to_put_if_absent() -> None:
    policy = render(Role.TRAINER, LOCATION, service=Service.AWS)
    (adding,) = [each for each in policy["Statement"] if each["Sid"] == "AddToTheLogs"]
    assert adding["Condition"] == {"Null": {"s3:if-none-match": "false"}}
    (finding,) = [each for each in policy["Statement"] if each["Sid"] == "FindModels"]
    assert set(finding["Condition"]) == {"StringLikeIfExists"}


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("role", Role)
def test_nothing_is_left_to_fill_in_and_nothing_reaches_beyond_the_registry(
    role: Role, service: Service
) -> None:
    consumer = "grpc-1" if role is Role.CONSUMER else None
    policy = render(role, LOCATION, service=service, consumer=consumer)
    assert not any("<" in text for text in strings(policy))
    for statement in policy["Statement"]:
        for resource in statement["Resource"]:
            assert resource.startswith(ARN) or resource == "arn:aws:s3:::models"
        for prefix in strings(statement.get("Condition", {}).get("StringLike", {})):
            assert prefix.startswith("team/a/")


def test_a_registry_at_the_root_of_a_bucket_has_no_prefix() -> None:
    policy = render(Role.TRAINER, Location.of("s3://models?endpoint=http://h:1"))
    assert "arn:aws:s3:::models/hint.json" in granted(policy, "s3:PutObject")


@pytest.mark.parametrize("consumer", [None, "", "*", "-*", "../x", "a/b", "?", "UP", "a*b", "x" * 80])
def test_a_consumer_that_could_be_anyone_is_refused(consumer: str | None) -> None:
    with pytest.raises(UsageError, match="--consumer"):
        render(Role.CONSUMER, LOCATION, consumer=consumer)


@pytest.mark.parametrize(
    ("role", "options"),
    [
        (Role.TRAINER, {"consumer": "grpc-1"}),
        (Role.OPERATOR, {"record_refusals": True}),
        (Role.OPERATOR, {"model": "digits"}),
        (Role.TRAINER, {"model": "*"}),
        (Role.TRAINER, {"pipeline": "digits"}),
        (Role.CONSUMER, {"consumer": "flink-*", "pipeline": "*"}),
    ],
)
def test_options_that_do_not_fit_the_role_are_refused(role: Role, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        render(role, LOCATION, **options)


@pytest.mark.parametrize(
    "url", ["file:///tmp/x", "s3:///x", "memory://x", "", "s3://bucket/a*", "s3://bucket/%24%7Bx%7D"]
)
def test_a_store_without_policies_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Location.of(url)


def test_the_command_prints_json() -> None:
    result = CliRunner().invoke(app, ["render", "operator", "--store", STORE])
    assert result.exit_code == 0
    assert orjson.loads(result.stdout) == render(Role.OPERATOR, LOCATION)
