"""A build's events for people: `--progress` plain, tty, rawjson and quiet, the summary, the failure.

Nothing that a step has printed is ever taken off the screen again, and each step's line ends with its seconds (W6).
"""

from __future__ import annotations

import os

from pier.cli.jsontext import dumps
from pier.cli.out import encode, write
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STDERR = 2
LAST_LINES = 10
"""Of the output of a step that failed, or that runs, on a terminal."""
SLOWEST = 3
NANO = 1_000_000_000


class Step:
    """One step as it is shown."""

    __slots__ = ("begun", "cached", "ended", "error", "number", "output", "rest", "title")

    def __init__(self, number: int, title: str, begun: int) -> None:
        self.number = number
        self.title = title
        self.begun = begun
        self.ended = 0
        self.cached = False
        self.error = ""
        self.output: list[str] = []
        self.rest = ""

    @property
    def seconds(self) -> float:
        return max(0, self.ended - self.begun) / NANO

    def lines(self, text: str) -> list[str]:
        """The lines that are whole now."""
        *whole, self.rest = (self.rest + text).split("\n")
        self.output += whole
        return whole


class Progress:
    """Keeps what was told; the base of the ways to show it, and itself the quiet one."""

    def __init__(self, fd: int = STDERR) -> None:
        self.fd = fd
        self.steps: dict[str, Step] = {}
        self.counts: dict[tuple[str, str], dict[str, Any]] = {}
        self.warnings: list[str] = []

    def take(self, message: dict[str, Any]) -> None:
        """One message of the stream."""
        if told := message.get("started"):
            self._begun(told)
        elif told := message.get("finished"):
            step = self._begun(told)
            step.ended, step.cached, step.error = told["at"], told["cached"], told["error"]
            for text in step.lines("\n") if step.rest else ():
                self.printed(step, text)
            self.ended(step)
        elif told := message.get("printed"):
            printing = self.steps.get(told["id"])
            for text in printing.lines(told["text"]) if printing else ():
                assert printing is not None
                self.printed(printing, text)
        elif told := message.get("counted"):
            self.counts[told["id"], told["what"]] = told
            self.counted(told)
        elif told := message.get("warned"):
            self.warnings.append(told["text"])
            self.warned(told["text"])

    def _begun(self, told: dict[str, Any]) -> Step:
        step = self.steps.get(told["id"])
        if step is None:
            step = self.steps[told["id"]] = Step(len(self.steps) + 1, told["name"], told["at"])
            self.begun(step)
        return step

    def begun(self, step: Step) -> None:
        """A step has begun."""

    def printed(self, step: Step, text: str) -> None:
        """A step has printed a line."""

    def counted(self, told: dict[str, Any]) -> None:
        """A part of a step has gone on."""

    def ended(self, step: Step) -> None:
        """A step has ended."""

    def warned(self, text: str) -> None:
        """Something a person should know."""

    def close(self) -> None:
        """The stream is at its end."""

    def say(self, text: str) -> None:
        write(self.fd, encode(text))


class Plain(Progress):
    """One line after another, as BuildKit's `plain`."""

    def begun(self, step: Step) -> None:
        self.say(f"#{step.number} {step.title}\n")

    def printed(self, step: Step, text: str) -> None:
        self.say(f"#{step.number} {text}\n")

    def counted(self, told: dict[str, Any]) -> None:
        step = self.steps.get(told["id"])
        if told["done"] and step is not None:
            figures = human_size(told["current"]) if told["current"] else ""
            self.say(f"#{step.number} {' '.join(filter(None, (told['what'], told['action'], figures, 'done')))}\n")

    def ended(self, step: Step) -> None:
        self.say(f"#{step.number} {verdict(step)}\n\n")

    def warned(self, text: str) -> None:
        self.say(f"WARNING: {text}\n")


class Terminal(Progress):
    """Steps that run at the bottom, with the end of their output; what has ended stays above."""

    def __init__(self, fd: int = STDERR) -> None:
        super().__init__(fd)
        self._drawn = 0
        try:
            self._columns = os.get_terminal_size(fd).columns
        except OSError:
            self._columns = 80

    def begun(self, step: Step) -> None:
        self._draw("")

    def printed(self, step: Step, text: str) -> None:
        self._draw("")

    def counted(self, told: dict[str, Any]) -> None:
        self._draw("")

    def warned(self, text: str) -> None:
        self._draw(f" ! {text}\n")

    def ended(self, step: Step) -> None:
        mark = "x" if step.error else "-" if step.cached else "+"
        output = "".join(f"     {line}\n" for line in step.output)
        self._draw(f" {mark} {self._fitted(step.title, verdict(step))}\n{output}")

    def close(self) -> None:
        self._draw("")

    def _draw(self, kept: str) -> None:
        """Take the moving part away, write what stays, write the moving part again."""
        rows = []
        for id, step in self.steps.items():
            if not step.ended:
                rows.append(f" > {self._fitted(step.title, self._part(id))}")
                rows += [f"     {line[: self._columns - 6]}" for line in step.output[-3:]]
        away = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        self._drawn = len(rows)
        self.say(away + kept + "".join(f"{row}\n" for row in rows))

    def _part(self, id: str) -> str:
        told = [each for (of, _), each in self.counts.items() if of == id and not each["done"]]
        if not told:
            return ""
        total = sum(each["total"] for each in told)
        figures = human_size(sum(each["current"] for each in told))
        return f"{figures}/{human_size(total)}" if total else figures

    def _fitted(self, title: str, end: str) -> str:
        room = max(10, self._columns - 4 - len(end))
        return f"{title[:room]:<{room}} {end}".rstrip()


class RawJson(Progress):
    """The stream itself, a document a line."""

    def take(self, message: dict[str, Any]) -> None:
        self.say(dumps(message) + "\n")


WAYS = {"plain": Plain, "tty": Terminal, "rawjson": RawJson, "quiet": Progress}


def way(name: str, fd: int = STDERR) -> Progress:
    """What `--progress` asks for; `auto` is `tty` on a terminal. Raises KeyError."""
    if name in ("", "auto"):
        name = "tty" if os.isatty(fd) else "plain"
    return WAYS[name](fd)


def verdict(step: Step) -> str:
    """How a step ended, with its seconds."""
    if step.error == "canceled":
        return f"CANCELED {step.seconds:.1f}s"
    if step.error:
        return f"ERROR {step.seconds:.1f}s: {step.error}"
    return f"CACHED {step.seconds:.1f}s" if step.cached else f"DONE {step.seconds:.1f}s"


def summary(progress: Progress, seconds: float, sent_bytes: int, large: list[tuple[int, str]]) -> str:
    """What a build has taken: time, steps, the slowest of them, and what was sent (W6, T23)."""
    steps = list(progress.steps.values())
    cached = sum(step.cached for step in steps)
    rows = [f"built in {seconds:.1f}s, {len(steps)} steps, {cached} of them cached, {human_size(sent_bytes)} sent"]
    slow = sorted((step for step in steps if not step.cached and step.seconds >= 0.1), key=lambda one: -one.seconds)
    if slow:
        rows.append("slowest: " + "; ".join(f"{step.seconds:.1f}s {step.title}" for step in slow[:SLOWEST]))
    if large:
        names = ", ".join(f"{name} ({human_size(size)})" for size, name in sorted(large, reverse=True)[:10])
        rows.append(f"large files were sent: {names}; .dockerignore can leave them out")
    return "\n".join(rows) + "\n"


def failure(progress: Progress, detail: dict[str, Any]) -> str:
    """The failed step's last lines, the excerpt of the Dockerfile with the line marked, the error."""
    rows = []
    step = progress.steps.get(detail.get("step", ""))
    if step is not None and step.output:
        rows += ["------", f" > {step.title}:", *step.output[-LAST_LINES:], "------"]
    if detail.get("excerpt"):
        rows.append(detail["excerpt"])
    return "".join(f"{row}\n" for row in rows)
