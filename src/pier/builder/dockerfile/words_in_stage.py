"""Words of a stage's instructions: expanded with its variables, what is not defined reported (UndefinedVar)."""

from __future__ import annotations

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile import lint
from pier.builder.dockerfile.scope import NOT_IN_ENVIRONMENT
from pier.builder.dockerfile.shell import BadWord, Expansion, Lexer
from pier.builder.dockerfile.state import StageState
from pier.builder.dockerfile.suggest import nearest

_CONTENT: Lexer = Lexer(plain_quotes=True)
"""For files: quotes are theirs, and the escape is a backslash whatever the Dockerfile's is."""


def expand_word(state: StageState, instruction: i.Instruction, word: str) -> str:
    """Raises DockerfileError."""
    return _expand(state, instruction, word, state.shared.lexer).text


def expand_words(state: StageState, instruction: i.Instruction, word: str) -> list[str]:
    """The word, split at spaces that come out of variables."""
    return _expand(state, instruction, word, state.shared.lexer).words


def expand_content(state: StageState, instruction: i.Instruction, text: str) -> str:
    """A file's content."""
    return _expand(state, instruction, text, _CONTENT).text


def _expand(state: StageState, instruction: i.Instruction, word: str, lexer: Lexer) -> Expansion:
    try:
        expansion = lexer.expand(word, state.env)
    except BadWord as fault:
        raise state.fail(str(fault), instruction) from None
    unknown = expansion.unmatched - {definition.name for definition in state.build_args} - NOT_IN_ENVIRONMENT
    for name in sorted(unknown):
        near = nearest(name, state.env)
        detail = f"Usage of undefined variable '${name}'" + (f" (did you mean ${near}?)" if near else "")
        state.shared.linter.report(lint.UNDEFINED_VAR, detail, instruction.source)
    return expansion
