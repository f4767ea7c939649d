"""What can go wrong in the demo.

FerryError
└── DemoFailedError         a step of the script did not happen, or a service ended by itself
"""

from __future__ import annotations

from ferryline.registry.errors import FerryError


class DemoFailedError(FerryError):
    """Something that the demo shows did not happen; the text says what, and where to look."""
