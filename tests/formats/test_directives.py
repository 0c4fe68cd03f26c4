"""RFC 36: its examples and its rules."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.directives import Directive, DirectiveError, options, parse, split

NOSTALGIA = """\
#!/bin/sh
#FLUX: -N4                  # Request four nodes
#FLUX: --queue=batch        # Submit to the batch queue
#FLUX: --job-name=app001    # Set an explicit job name
flux run -N4 app
"""

DOCSTRING = '''\
#!/usr/bin/env python3
def main():
    """
    flux: -N4
    flux: --queue=batch
    flux: --job-name="my python job"

    # Set some arbitrary user data:
    flux: --setattr=user.data=\'\'\'
    flux: x, y, z
    flux: a, b, c
    flux: \'\'\'
    """
    run()
'''

LUA = """\
#!/usr/bin/lua
--
-- flux: -N1 --exclusive
-- flux: --output=job.out
local app = require 'app'
app.run()
"""

COMMENTS = """\
#!/bin/sh
# Set flux directives
#FLUX: -N1
# Set job name:
#FLUX: --job-name=test
hostname; date
"""

PLAIN = '''\
#!/usr/bin/env python3
"""
flux: --nodes=4

Set an arbitrary value in jobspec:
flux: --setattr=user.foo="hello, earth"
"""
'''

MULTILINE = '''\
# flux: --setattr=user.conf="""
# flux: [config]
# flux:   item = "foo"
# flux: """
'''


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (NOSTALGIA, ["-N4", "--queue=batch", "--job-name=app001"]),
        (
            DOCSTRING,
            [
                "-N4",
                "--queue=batch",
                "--job-name=my python job",
                "--setattr=user.data=x, y, z\na, b, c\n",
            ],
        ),
        (LUA, ["-N1", "--exclusive", "--output=job.out"]),
        (COMMENTS, ["-N1", "--job-name=test"]),
        (PLAIN, ["--nodes=4", "--setattr=user.foo=hello, earth"]),
        (MULTILINE, ['--setattr=user.conf=[config]\n  item = "foo"\n']),
        ("# flux: -N4 # -c2 : comment out for now\n", ["-N4"]),
        (
            """# flux: --setattr=user.data='{"option": "arg"}'\n""",
            ['--setattr=user.data={"option": "arg"}'],
        ),
        ("# flux: --job-name='''It's a \"job\"'''\n", ['--job-name=It\'s a "job"']),
        ('# flux: --setattr=user.foo="""{"key": 42}"""\n', ['--setattr=user.foo={"key": 42}']),
        (
            "# flux: -N 4 -c 2\n# Set job name:\n# flux: --job-name x\n",
            ["-N", "4", "-c", "2", "--job-name", "x"],
        ),
        ("echo no directives\n", []),
        ("", []),
        ("# flux:\n# flux:   # nothing\n", []),
        ("#flux: -N1\n\n\n#flux: -c2\n", ["-N1", "-c2"]),
    ],
)
def test_the_examples_of_the_rfc(script: str, expected: list[str]) -> None:
    assert options(script) == expected


def test_directives_know_their_lines() -> None:
    found = parse(DOCSTRING)
    assert [directive.lineno for directive in found] == [4, 5, 6, 9]
    assert isinstance(found[0], Directive)
    assert found[0].args == ["-N4"]


@pytest.mark.parametrize(
    ("script", "line", "complaint"),
    [
        ("#FLUX: -N1\nhostname; date\n#FLUX: --job-name=test\n", 3, "orphan 'FLUX:'"),
        ("# flux: -N4\n# flux: -c2\necho\n# flux: -q batch\n", 4, "ended at line 3"),
        ("# flux: -N4\n#flux: -c2\n", 2, "sentinel changed from '# flux:' to '#flux:'"),
        ("# flux: -N4\n# FLUX: -c2\n", 2, "sentinel changed"),
        ("# flux: -N4\n## flux: -c2\n", 2, "sentinel changed"),
        ("# flux: setattr x\n", 1, "unknown directive 'setattr'"),
        ("\n# flux: --name='x\n", 2, "no closing quotation"),
        ('# flux: --name="x\n', 1, "no closing quotation"),
        ("# flux: --a='''x\n", 1, "unclosed triple quote"),
        ("# flux: --a='''\n# flux: x\n", 1, "unterminated triple quote"),
        ("# flux: --a='''\n# x\n# flux: '''\n", 2, "inside the triple quote of line 1"),
        ("# flux: -N1 \\\n", 1, "nothing follows"),
    ],
)
def test_mistakes_are_named_with_their_line(script: str, line: int, complaint: str) -> None:
    with pytest.raises(DirectiveError, match=complaint) as caught:
        parse(script)
    assert caught.value.lineno == line
    assert str(caught.value).startswith(f"line {line}: ")


def test_other_triple_quotes_are_text_inside_triple_quotes() -> None:
    script = '# flux: --a="""\n# flux: \'\'\'\n# flux: """\n'
    assert options(script) == ["--a='''\n"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  ", []),
        ("a b", ["a", "b"]),
        ("a' b'c", ["a bc"]),
        ("''", [""]),
        ('a""', ["a"]),
        (r"a\ b", ["a b"]),
        (r"'a\b'", [r"a\b"]),
        (r'"a\"b\$\`\\\n"', [r'a"b$`\\n']),
        ("a # b", ["a"]),
        ("'#' a#b", ["#", "a"]),
        ('"""a "b\' """', ["a \"b' "]),
        ('""""a""""', ['"a"']),
        ('"""a"""\'b\'', ["ab"]),
        ("''''''", [""]),
    ],
)
def test_words_are_those_of_the_shell(text: str, words: list[str]) -> None:
    assert split(text) == words


@given(st.lists(st.text(st.sampled_from("ab \"'\\#$\t-"), max_size=8), max_size=5))
def test_quoted_words_survive(words: list[str]) -> None:
    text = " ".join("'" + word.replace("'", "'\\''") + "'" if word else "''" for word in words)
    if "'''" not in text:
        assert split(text) == words == shlex.split(text)


@given(st.text(st.sampled_from("ab \"'\\#"), max_size=15))
def test_any_text_splits_or_says_why(text: str) -> None:
    try:
        words = split(text)
    except DirectiveError:
        return
    if '"""' not in text and "'''" not in text and "#" not in text:
        assert words == shlex.split(text)
