"""Expansion of words: quotes, escapes, every modifier; what there is and what there is not; text that never ends."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.builder.dockerfile.shell import MAX_RESULT, BadWord, Lexer

ENV = {"A": "hello", "B": "two words", "E": "", "P": "/usr/local/bin:/bin", "STAR": "a*b?c", "é": "accent", "L": "x\ny"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # plain text and quotes
        ("abc", "abc"),
        ("a b  c", "a b  c"),
        ("'$A'", "$A"),
        ('"$A"', "hello"),
        ("\"'$A'\"", "'hello'"),
        ("'\"$A\"'", '"$A"'),
        ("a'b'c\"d\"", "abcd"),
        ("''", ""),
        # escapes
        ("\\$A", "$A"),
        ("\\\\$A", "\\hello"),
        ("\\\\\\$A", "\\$A"),
        ("a\\b", "ab"),
        ("a\\ b", "a b"),
        ("a\\", "a"),
        ('"a\\b"', "a\\b"),
        ('"\\$A\\"\\\\"', '$A"\\'),
        ("'a\\b'", "a\\b"),
        # names
        ("$A", "hello"),
        ("$A$B", "hellotwo words"),
        ("${A}x", "hellox"),
        ("$Ax", ""),
        ("$A-x", "hello-x"),
        ("$é", "accent"),
        ("$", "$"),
        ("$ a", "$ a"),
        ("a$", "a$"),
        ("$1x", "x"),
        ("$12x", "x"),
        ("${1}x", "x"),
        ("$@$*$#$?$-$!$0", ""),
        ("$$A", "A"),
        ("$%", "$%"),
        # default, alternative, must
        ("${A:-d}", "hello"),
        ("${E:-d}", "d"),
        ("${U:-d}", "d"),
        ("${E-d}", ""),
        ("${U-d}", "d"),
        ("${U:-}", ""),
        ("${U:-$A}", "hello"),
        ("${U:-${V:-${A}}}", "hello"),
        ("${U:-'}'}", "}"),
        ("${U:-\\}}", "}"),
        ("${U:-a b}", "a b"),
        ("${A:+d}", "d"),
        ("${E:+d}", ""),
        ("${U:+d}", ""),
        ("${E+d}", "d"),
        ("${U+d}", ""),
        ("${A:?no}", "hello"),
        ("${E?no}", ""),
        # beginnings and ends
        ("${A#h}", "ello"),
        ("${A#x}", "hello"),
        ("${A#*l}", "lo"),
        ("${A##*l}", "o"),
        ("${A%l*}", "hel"),
        ("${A%%l*}", "he"),
        ("${A#?}", "ello"),
        ("${A%?}", "hell"),
        ("${A#}", "hello"),
        ("${P##*/}", "bin"),
        ("${P%%:*}", "/usr/local/bin"),
        ("${STAR#a\\*}", "b?c"),
        ("${STAR%\\?c}", "a*b"),
        ("${U#x}", ""),
        ("${L#*y}", "x\ny"),
        ("${L%?y}", "x\ny"),
        ("${A#${A%?}}", "o"),
        # replacement
        ("${A/l/L}", "heLlo"),
        ("${A//l/L}", "heLLo"),
        ("${A/l*/L}", "heL"),
        ("${A//?/x}", "xxxxx"),
        ("${A/x/y}", "hello"),
        ("${A/l/}", "helo"),
        ("${A//l/}", "heo"),
        ("${P//\\//-}", "-usr-local-bin:-bin"),
        ("${P/:/\\/}", "/usr/local/bin\\//bin"),
        ("${A//l/$A}", "hehellohelloo"),
        ("${U/a/b}", ""),
    ],
)
def test_expand(word: str, expected: str) -> None:
    assert Lexer().expand(word, ENV).text == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ('"a', "unexpected end of statement while looking for matching double-quote"),
        ("${A", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${A:", "syntax error: missing '}'"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{A}", "syntax error: bad substitution"),
        ("${A/x}", "syntax error: missing '/' in ${}"),
        ("${A^^}", "unsupported modifier (^) in substitution"),
        ("${A:3}", "unsupported modifier (:3) in substitution"),
        ("${A b}", "unsupported modifier ( ) in substitution"),
        ("${A#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
        ("${U:?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${U?say why}", "U: say why"),
        ("${E:?$A}", "E: hello"),
    ],
)
def test_what_cannot_be_expanded(word: str, reason: str) -> None:
    with pytest.raises(BadWord) as raised:
        Lexer().expand(word, ENV)
    quoted = '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert str(raised.value) == f"failed to process {quoted}: {reason}"


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("a b", ["a", "b"]),
        ("  a\t b ", ["a", "b"]),
        ("$B", ["two", "words"]),
        ('"$B" c', ["two words", "c"]),
        ("'a b'c d", ["a bc", "d"]),
        ("a\\ b", ["a b"]),
        ("'' a", ["a"]),
        ("$E", []),
        ("x$B", ["xtwo", "words"]),
    ],
)
def test_words(word: str, words: list[str]) -> None:
    assert Lexer().expand(word, ENV).words == words


@pytest.mark.parametrize(
    ("lexer", "word", "expected"),
    [
        (Lexer(escape="`"), "`$A \\$A", "$A \\hello"),
        (Lexer(escape="`"), '"`" \\"', '" \\'),
        (Lexer(raw_quotes=True), "'a' \"$A\"", "'a' \"hello\""),
        (Lexer(raw_escapes=True), 'a\\b "\\$c"', "a\\b \\$c"),
        (Lexer(plain_quotes=True), 'it\'s "$A" \\$A', 'it\'s "hello" $A'),
        (Lexer(keep_unset=True), "$U ${U} ${U:-x} ${U/a/b} $A", "$U ${U} ${U:-x} ${U/a/b} hello"),
    ],
)
def test_other_ways_to_read(lexer: Lexer, word: str, expected: str) -> None:
    assert lexer.expand(word, ENV).text == expected


def test_what_was_used() -> None:
    expansion = Lexer().expand("$A ${U:-x} ${V:+$B} '$W'", ENV)
    assert expansion.matched == {"A", "B"}
    assert expansion.unmatched == {"U", "V"}


@pytest.mark.parametrize(
    "word",
    [
        "${a:-" * 200 + "}" * 200,
        "$X" * 3,
        "${Y//x/$Y}",
    ],
)
def test_no_word_grows_or_nests_without_end(word: str) -> None:
    with pytest.raises(BadWord, match=r"nested too deeply|longer than"):
        Lexer().expand(word, {"X": "x" * (MAX_RESULT // 2), "Y": "x" * 5000})


def test_a_pattern_of_many_stars_takes_no_long_time() -> None:
    many = {"X": "a" * 20_000}
    assert Lexer().expand("${X##*a*a*a*a*a*a*b}", many).text == many["X"]
    assert Lexer().expand("${X//*a*a*a*a*a*b/c}", many).text == many["X"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"$ { } : - + ? # % / \\ ' \" * a A B E U".split(), " ", "${A", "${U:-", "\0"]), max_size=30
    )
)
def test_any_word_is_expanded_or_refused(pieces: list[str]) -> None:
    with suppress(BadWord):
        expansion = Lexer().expand("".join(pieces), ENV)
        assert expansion.unmatched.isdisjoint(ENV)
        assert expansion.matched <= set(ENV)


@given(st.text(alphabet=st.characters(exclude_characters="$\\'\"", exclude_categories=["Cs"]), max_size=50))
@settings(max_examples=50)
def test_text_without_special_characters_stays(text: str) -> None:
    assert Lexer().expand(text, ENV).text == text
    assert Lexer().expand(f"'{text}'", ENV).text == text
