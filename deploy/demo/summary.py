"""The last line of a scripted demo: what happened, as one JSON object, and whether all of it did."""

from __future__ import annotations

from typing import Any

from ferryline.deploy.demo.caller import CallTally
from ferryline.deploy.demo.tally import ConsumerTally, Tally, median
from ferryline.registry.documents import ChannelEntry


def summarise(
    *,
    history: list[ChannelEntry],
    published: int,
    records_in: int,
    tally: Tally,
    calls: CallTally,
    rollback: ChannelEntry,
    seconds: float,
) -> dict[str, Any]:
    """The summary of a run whose streams have come to rest.

    Args:
        history: the channel's entries, oldest first.
        published: how many versions there are.
        records_in: records written to the source topic.
        tally: what was read from the output topics.
        calls: what came of the calls to the server.
        rollback: the entry that rolled back.
        seconds: how long the services ran.
    """
    return {
        "versions_published": published,
        "generations": len(history),
        "generations_seen": {
            "flink": sorted(tally.flink.first_seen),
            "grpc": sorted(calls.server.first_seen),
        },
        "rollback": {
            "generation": rollback.generation,
            "to_version": rollback.version,
            "flink_serves": _served(tally.flink),
            "grpc_serves": _served(calls.server),
        },
        "records_in": records_in,
        "records_scored": tally.scored,
        "records_dead_lettered": tally.dead,
        "accuracy_by_version": {
            str(number): round(version.accuracy, 4)
            for number, version in sorted(tally.versions.items())
            if version.accuracy is not None
        },
        "swap_seconds": {
            "flink": _swaps(tally.flink, history),
            "grpc": _swaps(calls.server, history),
        },
        "requests": calls.answered + calls.failed,
        "failed_requests": calls.failed,
        "seconds": round(seconds, 1),
    }


def faults(summary: dict[str, Any], *, generations_wanted: int) -> list[str]:
    """What did not happen as it must; empty for a good run."""
    found = []
    lost = summary["records_in"] - summary["records_scored"] - summary["records_dead_lettered"]
    if lost:
        found.append(
            f"{lost} records of {summary['records_in']} are missing" if lost > 0 else f"{-lost} too many"
        )
    if summary["failed_requests"]:
        found.append(f"{summary['failed_requests']} requests failed")
    rollback = summary["rollback"]
    for name, seen in summary["generations_seen"].items():
        if len(seen) < generations_wanted:
            found.append(f"{name} was seen to serve {len(seen)} generations, not {generations_wanted}")
        if rollback[f"{name}_serves"] != [rollback["generation"], rollback["to_version"]]:
            found.append(f"{name} does not serve the version that was rolled back to")
    return found


def _served(tally: ConsumerTally) -> list[int] | None:
    return list(tally.newest) if tally.newest else None


def _swaps(tally: ConsumerTally, history: list[ChannelEntry]) -> dict[str, float | int | None]:
    latencies = list(tally.latencies(history).values())
    middle, worst = median(latencies), max(latencies, default=None)
    return {
        "count": len(latencies),
        "median": None if middle is None else round(middle, 3),
        "max": None if worst is None else round(worst, 3),
    }
