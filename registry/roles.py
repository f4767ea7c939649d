"""Who credentials are meant for.

`ferryline.deploy.access` has a policy for each, and `ferry doctor --as` checks it.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """A kind of user of a registry's bucket."""

    TRAINER = "trainer"
    CONSUMER = "consumer"
    OPERATOR = "operator"
