"""A traceback as text, for a process that is not to load `traceback` (it reads source files, and weighs 1 MB)."""

from __future__ import annotations


def describe(error: BaseException) -> str:
    """Where `error` came from, a line a frame, the innermost last, and what it says."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{trace.tb_lineno} in {code.co_qualname}\n")
        trace = trace.tb_next
    return "".join([*lines, f"{type(error).__name__}: {error}\n"])
