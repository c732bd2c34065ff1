"""Go's text/template syntax, the part `--format` uses, as a tree of tuples.

    node     = ("text", str) | ("action", pipeline) | ("if" | "with" | "range", pipeline, [node], [node])
             | ("break",) | ("continue",)
    pipeline = (variables declared, assigns to existing?, [command])     command = [operand]
    operand  = ("dot",) | ("nil",) | ("const", value) | ("field", names, position) | ("var", name, names, position)
             | ("ident", name, position) | ("pipe", pipeline) | ("chain", operand, names, position)

Errors are TemplateError with the line, as Go words them: `template: :1: unclosed action`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

    Node = tuple[Any, ...]
    Pipeline = tuple[tuple[str, ...], bool, list[list[Node]]]
    Token = tuple[str, str, int]

_SPACE = " \t\r\n"
_KEYWORDS = frozenset(("if", "with", "range", "else", "end", "break", "continue", "define", "template", "block"))
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\"}


class TemplateError(Exception):
    """A template that cannot be read or run; the text is Go's."""


def parse(text: str, functions: Container[str]) -> list[Node]:
    """The tree of a template. TemplateError names the line and what is wrong there."""
    return _Parser(text, functions).document()


class _Parser:
    def __init__(self, text: str, functions: Container[str]) -> None:
        self.text = text
        self.functions = functions
        self.pieces = _split(text)  # ("text", str, pos) and ("action", inside, pos)
        self.next_piece = 0
        self.tokens: list[Token] = []
        self.at = 0
        self.variables = ["$"]
        self.loops = 0

    def document(self) -> list[Node]:
        nodes, ended_by = self.block()
        if ended_by:
            raise self.error(f"unexpected {{{{{ended_by}}}}}", self.pieces[self.next_piece - 1][2])
        return nodes

    def error(self, problem: str, position: int) -> TemplateError:
        line = self.text.count("\n", 0, position) + 1
        return TemplateError(f"template: :{line}: {problem}")

    # --- blocks ---

    def block(self) -> tuple[list[Node], str]:
        """Nodes up to an `else` or `end` (which is returned and consumed) or the end of the template ("")."""
        nodes: list[Node] = []
        while self.next_piece < len(self.pieces):
            kind, inside, position = self.pieces[self.next_piece]
            self.next_piece += 1
            if kind == "text":
                nodes.append(("text", inside))
                continue
            self.tokens = _tokenize(inside, position, self.error)
            self.at = 0
            if not self.tokens:
                if inside.strip(_SPACE).startswith("/*"):
                    continue
                raise self.error("missing value for command", position)
            word = self.tokens[0][1] if self.tokens[0][0] == "ident" else ""
            if word in ("else", "end"):
                self.at = 1
                return nodes, word
            nodes.append(self.control(word, position) if word in _KEYWORDS else ("action", self.pipeline("command")))
        return nodes, ""

    def control(self, word: str, position: int) -> Node:
        self.at = 1
        if word in ("break", "continue"):
            if not self.loops:
                raise self.error(f"{{{{{word}}}}} outside {{{{range}}}}", position)
            return (word,)
        if word not in ("if", "with", "range"):
            raise self.error(f"{{{{{word}}}}} is not supported in --format", position)
        scope = len(self.variables)
        pipeline = self.pipeline(word)
        self.loops += word == "range"
        body, ended_by = self.block()
        self.loops -= word == "range"
        otherwise: list[Node] = []
        if ended_by == "else":
            if self.at < len(self.tokens) and self.tokens[self.at][1] in ("if", "with"):
                otherwise = [self.control_after_else(position)]
                del self.variables[scope:]
                return (word, pipeline, body, otherwise)
            otherwise, ended_by = self.block()
        if ended_by != "end":
            raise self.error("unexpected EOF", len(self.text))
        del self.variables[scope:]
        return (word, pipeline, body, otherwise)

    def control_after_else(self, position: int) -> Node:
        """`{{else if …}}`: one `end` closes both."""
        word = self.tokens[self.at][1]
        del self.tokens[: self.at]
        return self.control(word, position)

    # --- pipelines ---

    def pipeline(self, context: str, closer: str = "") -> Pipeline:
        declared, assigns = self.declarations(context)
        commands: list[list[Node]] = [[]]
        while (token := self.peek()) is not None:
            kind, text, position = token
            if closer and text == closer and kind == "punct":
                break
            if kind == "punct" and text == "|":
                if not commands[-1]:
                    raise self.error("missing value for command", position)
                self.at += 1
                commands.append([])
                continue
            commands[-1].append(self.operand())
        if not commands[-1]:
            position = self.tokens[-1][2] if self.tokens else len(self.text)
            raise self.error(f"missing value for {context}", position)
        return declared, assigns, commands

    def declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$i, $x :=` or `$x =` at the start of a pipeline."""
        names: list[str] = []
        at = self.at
        while at < len(self.tokens) and self.tokens[at][0] == "var":
            names.append(self.tokens[at][1])
            at += 1
            following = self.tokens[at][1] if at < len(self.tokens) else ""
            if following == "," and context == "range" and len(names) == 1:
                at += 1
                continue
            if following in (":=", "="):
                self.at = at + 1
                if following == ":=":
                    self.variables += names
                return tuple(names), following == "="
            break
        return (), False

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def operand(self) -> Node:
        kind, text, position = self.tokens[self.at]
        self.at += 1
        node: Node
        if kind == "field":
            node = ("field", (text,), position)
        elif kind == "var":
            if text not in self.variables:
                raise self.error(f'undefined variable "{text}"', position)
            node = ("var", text, (), position)
        elif kind == "const":
            return ("const", _constant(text))
        elif kind == "string":
            return ("const", text)
        elif kind == "dot":
            return ("dot",)
        elif kind == "ident":
            return self.identifier(text, position)
        elif text == "(":
            inner = self.pipeline("parenthesized pipeline", ")")
            if self.peek() is None:
                raise self.error("unclosed left paren", position)
            self.at += 1
            node = ("pipe", inner)
        else:
            raise self.error(f'unexpected "{text}" in operand', position)
        return self.chain(node)

    def identifier(self, text: str, position: int) -> Node:
        if text in ("true", "false"):
            return ("const", text == "true")
        if text == "nil":
            return ("nil",)
        if text not in self.functions:
            raise self.error(f'function "{text}" not defined', position)
        return ("ident", text, position)

    def chain(self, node: Node) -> Node:
        """Fields that follow without a space: `.State` `.Status`, `$x.Name`, `(index .Mounts 0).Source`."""
        names: list[str] = []
        position = 0
        while (token := self.peek()) is not None and token[0] == "field" and self.text[token[2] - 1] not in _SPACE:
            position = position or token[2]
            names.append(token[1])
            self.at += 1
        if not names:
            return node
        if node[0] == "field":
            return ("field", (*node[1], *names), position)
        if node[0] == "var":
            return ("var", node[1], tuple(names), position)
        return ("chain", node, tuple(names), position)


def _split(text: str) -> list[Token]:
    """Cut a template into text and actions, with the trim markers `{{-` and `-}}` done."""
    pieces: list[Token] = []
    at = 0
    trim = False
    while at < len(text):
        start = text.find("{{", at)
        plain = text[at:] if start < 0 else text[at:start]
        if trim:
            plain = plain.lstrip(_SPACE)
        if start < 0:
            if plain:
                pieces.append(("text", plain, at))
            break
        inside_at = start + 2
        if text[inside_at : inside_at + 1] == "-" and text[inside_at + 1 : inside_at + 2] in _SPACE:
            plain = plain.rstrip(_SPACE)
            inside_at += 1
        if plain:
            pieces.append(("text", plain, at))
        end = _action_end(text, inside_at)
        inside = text[inside_at:end]
        trim = inside.endswith("-") and inside[-2:-1] in _SPACE and len(inside) > 1
        pieces.append(("action", inside[:-1] if trim else inside, inside_at))
        at = end + 2
    return pieces


def _action_end(text: str, at: int) -> int:
    """Where the `}}` of an action begins; strings inside are stepped over."""
    start = at
    while at < len(text):
        char = text[at]
        if text.startswith("}}", at):
            return at
        if char in "\"`'":
            close = _string_end(text, at)
            if close < 0:
                break
            at = close
        elif text.startswith("/*", at):
            close = text.find("*/", at)
            if close < 0:
                line = text.count("\n", 0, start) + 1
                raise TemplateError(f"template: :{line}: unclosed comment")
            at = close + 1
        at += 1
    line = text.count("\n", 0, start) + 1
    kind = "unterminated quoted string" if at < len(text) else "unclosed action"
    raise TemplateError(f"template: :{line}: {kind}")


def _string_end(text: str, at: int) -> int:
    """Index of the closing quote of the string that begins at `at`; -1 when there is none on its line."""
    delimiter = text[at]
    at += 1
    while at < len(text):
        if text[at] == delimiter:
            return at
        if text[at] == "\\" and delimiter != "`":
            at += 1
        elif text[at] == "\n" and delimiter != "`":
            return -1
        at += 1
    return -1


def _tokenize(inside: str, offset: int, error: Any) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(inside):
        char = inside[at]
        position = offset + at
        if char in _SPACE:
            at += 1
        elif inside.startswith("/*", at):
            at = inside.index("*/", at) + 2
        elif char in "\"`'":
            end = _string_end(inside, at)
            body = inside[at + 1 : end]
            tokens.append(("string", body if char == "`" else _unescape(body), position))
            at = end + 1
        elif inside.startswith(":=", at):
            tokens.append(("punct", ":=", position))
            at += 2
        elif char in "|(),=":
            tokens.append(("punct", char, position))
            at += 1
        elif char in ".$" or char.isalnum() or char in "_+-":
            kind, text, at = _word(inside, at)
            tokens.append((kind, text, position))
        else:
            raise error(f"unexpected {char!r} in command", position)
    return tokens


def _word(inside: str, at: int) -> tuple[str, str, int]:
    """A field, variable, identifier, number or lone dot beginning at `at` -> (kind, text, index after it)."""
    char = inside[at]
    end = at + 1
    if char.isdigit() or char in "+-" or (char == "." and inside[end : end + 1].isdigit()):
        while end < len(inside) and (inside[end].isalnum() or inside[end] in "._"):
            end += 1
        return "const", inside[at:end], end
    while end < len(inside) and (inside[end].isalnum() or inside[end] == "_"):
        end += 1
    word = inside[at:end]
    if char == ".":
        return ("field", word[1:], end) if len(word) > 1 else ("dot", ".", end)
    return ("var", word, end) if char == "$" else ("ident", word, end)


def _constant(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise TemplateError(f'template: :1: bad number syntax: "{text}"') from None


def _unescape(body: str) -> str:
    if "\\" not in body:
        return body
    out: list[str] = []
    at = 0
    while at < len(body):
        if body[at] == "\\" and at + 1 < len(body):
            out.append(_ESCAPES.get(body[at + 1], body[at : at + 2]))
            at += 2
        else:
            out.append(body[at])
            at += 1
    return "".join(out)
