"""Every command says what it is for with an example that is one; words are completed; an error is a sentence."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess

import pytest

from a2mae.commands import build_parser, main


def parsers(parser, name="a2mae"):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from parsers(below, f"{name} {word}")


@pytest.mark.parametrize(("name", "parser"), list(parsers(build_parser())))
def test_a_command_says_what_it_is_for_and_its_examples_are_commands(name, parser, capsys):
    assert parser.description and "for example:" in parser.epilog
    examples = [line.strip() for line in parser.epilog.splitlines() if line.startswith("  a2mae")]
    examples = [line.split(">>")[0] for line in examples]
    assert examples and all(line.startswith(name) for line in examples)
    for line in examples:
        if "--print-completion" not in line:
            assert build_parser().parse_args(shlex.split(line)[1:]).run
    with pytest.raises(SystemExit):
        main([*name.split()[1:], "--help"])
    assert examples[0] in capsys.readouterr().out, "it is not broken into lines"


def test_words_are_completed_in_a_shell(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--print-completion", "bash"])
    assert left.value.code == 0
    (tmp_path / "a2mae.bash").write_text(capsys.readouterr().out)
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    asked = (
        "source a2mae.bash; COMP_WORDS=(a2mae la); COMP_CWORD=1; COMP_LINE='a2mae la';"
        " $(complete -p a2mae | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["labels"], done.stderr
