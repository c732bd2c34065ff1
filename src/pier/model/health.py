"""Health checks, of containers and of images."""

from __future__ import annotations

from typing import Annotated

from .wire import OMIT, Struct


class HealthConfig(Struct):
    """How to ask a container whether it is well. Times in nanoseconds, 0: inherited from the image or the default."""

    test: Annotated[list[str] | None, OMIT] = None
    """Empty: inherit; `["NONE"]`: disable; `["CMD", …]`: exec; `["CMD-SHELL", command]`: through the shell."""
    interval: Annotated[int, OMIT] = 0
    timeout: Annotated[int, OMIT] = 0
    start_period: Annotated[int, OMIT] = 0
    start_interval: Annotated[int, OMIT] = 0
    retries: Annotated[int, OMIT] = 0
