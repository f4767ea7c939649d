"""`ferry doctor`."""

from __future__ import annotations

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.output import print_json, print_table
from ferryline.registry.doctor.examination import examine
from ferryline.registry.doctor.findings import Finding, Outcome
from ferryline.registry.doctor.rights import RightFinding, look_at_rights
from ferryline.registry.errors import StoreDeniedError, StoreError
from ferryline.registry.roles import Role
from ferryline.registry.settings import load_settings
from ferryline.registry.stores import Store, open_store

_WORDS = {Outcome.PASSED: "pass", Outcome.FAILED: "FAIL", Outcome.NOT_PROBED: "not probed"}


def doctor(store: str | None, output: OutputFormat, *, role: Role | None, consumer: str | None) -> None:
    """Examine the store and the credentials.

    Raises:
        StoreError: a probe failed, or none could be made.
        StoreDeniedError: the credentials lack what `role` needs.
    """
    opened = open_store(load_settings(store=store).store)
    findings = examine(opened)
    rights = look_at_rights(opened, role=role, consumer=consumer)
    if output is OutputFormat.JSON:
        print_json(_document(opened, findings, rights, role))
    else:
        _print(opened, findings, rights)
    _conclude(opened, findings, rights, role)


def _document(
    store: Store, findings: list[Finding], rights: list[RightFinding], role: Role | None
) -> dict[str, object]:
    return {
        "store": store.url,
        "findings": [
            {"probe": item.probe, "outcome": item.outcome, "detail": item.detail} for item in findings
        ],
        "role": role,
        "rights": [
            {"right": item.right, "held": item.held, "needed": item.needed, "detail": item.detail}
            for item in rights
        ],
    }


def _print(store: Store, findings: list[Finding], rights: list[RightFinding]) -> None:
    rows = [(item.probe, _WORDS[item.outcome], item.detail) for item in findings]
    print_table(["PROBE", "RESULT", "DETAIL"], rows, title=store.url)
    print_table(["RIGHT", "HELD", "DETAIL"], [(item.right, _held(item), item.detail) for item in rights])


def _held(item: RightFinding) -> str:
    word = {True: "yes", False: "no", None: "?"}[item.held]
    if item.missing:
        return f"{word}, MISSING"
    return f"{word}, more than needed" if item.excess else word


def _conclude(store: Store, findings: list[Finding], rights: list[RightFinding], role: Role | None) -> None:
    failed = [item for item in findings if item.failed]
    if not any(item.outcome is Outcome.PASSED for item in findings):
        why = failed[0].detail if failed else "these credentials may neither read nor write"
        raise StoreError(f"nothing about {store.url} could be found out: {why}")
    if failed:
        names = ", ".join(item.probe for item in failed)
        raise StoreError(f"{store.url} failed {names}: do not keep a registry there")
    if missing := [item.right for item in rights if item.missing]:
        raise StoreDeniedError(
            f"these credentials are not enough for a {role}: they may not {', '.join(missing)}. "
            f"`python -m ferryline.deploy.access render {role}` prints the policy that is"
        )
