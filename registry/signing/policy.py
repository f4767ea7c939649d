"""What is asked of signatures; apart from the verifier, so that settings can name it at no cost."""

from __future__ import annotations

from enum import StrEnum

GATE = "signature"
"""The gate that refuses what nobody trusted vouches for."""


class SignaturePolicy(StrEnum):
    """What `FERRY_SIGNATURES` takes."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"
