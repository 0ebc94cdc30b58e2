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


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "\udc80", "x/\udcff.tif"])
@pytest.mark.parametrize(
    "words",
    [
        ("search", "{}", "--point", "1", "2"),
        ("search", "out", "--chip", "{}"),
        ("search", "out", "--examples", "{}"),
        ("search", "out", "--point", "1", "2", "--cogs", "{}"),
        ("export", "{}", "out", "--to", "timm"),
        ("export", "model", "{}", "--to", "hub"),
        ("weights", "show", "{}"),
        ("weights", "import", "file", "{}"),
        ("labels", "{}", "--yes"),
        ("init", "{}", "--yes"),
        ("init", "scenes", "--yes", "--aoi", "{}"),
    ],
)
def test_what_can_be_no_name_is_a_sentence(project, capsys, words, name):
    assert main([word.format(name) for word in words]) == 1
    told = capsys.readouterr().err
    assert ("has a zero byte" if "\0" in name else "has bytes in its name that are no UTF-8") in told
    assert told.isascii()


@pytest.mark.parametrize("env", ["", ".", "..", "base/../local", "/etc", "a\0b", "\ud800"])
@pytest.mark.parametrize("command", [("check",), ("search", "out", "--point", "1", "2"), ("labels", "x", "--yes")])
def test_a_path_is_no_environment(project, capsys, command, env):
    assert main([*command, f"--env={env}"]) == 1
    assert "conf has no environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--point", "nan", "1"), "point.0"),
        (("--point", "1", "inf"), "point.1"),
        (("--point", "1", "2", "--top", "0"), "top"),
        (("--point", "1", "2", "--top", "-3"), "top"),
        (("--point", "1", "2", "--exclude-m", "-1"), "exclude_m"),
        (("--point", "1", "2", "--exclude-m", "nan"), "exclude_m"),
    ],
)
@pytest.mark.parametrize("where", [(), ("--cogs", ".")])
def test_an_option_that_cannot_be_is_a_sentence(project, capsys, options, where, sentence):
    assert main(["search", "out", *options, *where]) == 1
    assert capsys.readouterr().err.startswith(f"a2mae: search: '{sentence}': ")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("parameters_search.yml", "search: {top: [}"),
        ("parameters_search.yml", "search: ${oops:1}"),
        ("parameters_search.yml", "search: ${nowhere}"),
        ("parameters_search.yml", "search: 5"),
        ("parameters_search.yml", "search: {tpo: 5}"),
        ("parameters_search.yml", "- a\n- b"),
        ("globals.yml", "data_root: ["),
        ("catalog_mine.yml", "embeddings: {type: nowhere.Nothing, filepath: x}"),
        ("catalog_mine.yml", "embeddings: {type: 5}"),
    ],
)
def test_a_file_of_an_environment_that_cannot_be_read_is_a_sentence(project, capsys, file, text):
    (project / "conf/mine").mkdir()
    (project / "conf/mine" / file).write_text(text)
    assert main(["search", "out", "--env", "mine", "--point", "1", "2"]) == 1
    assert capsys.readouterr().err.startswith(
        (
            *("a2mae: the environment mine cannot be read: ", "a2mae: search: ", "a2mae: the parameter group search"),
            *(f"a2mae: {project / 'conf/mine' / file} {why}" for why in ("is no YAML", "holds a list")),
        )
    )


def test_the_user_s_folder_is_what_the_shell_would_make_of_it(project, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["export", "~/model", "out", "--to", "timm"]) == 1
    assert f"{tmp_path}/model is no model directory" in capsys.readouterr().err


def test_an_error_of_a_library_without_a_file_says_its_own_words(monkeypatch, capsys):
    def fail(_options):
        raise OSError("the disk of https://user:secret@host/x?sig=secret has gone")

    monkeypatch.setattr("a2mae.commands.weights._show", fail)
    assert main(["weights", "show", "x"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("a2mae: the disk of https://host/x") and "secret" not in told and "None" not in told


@pytest.mark.parametrize("command", [("init", "--yes"), ("labels", "--yes", "--env", "local"), ("weights", "show")])
def test_a_user_that_nobody_knows_is_a_name_like_others(project, capsys, command):
    assert main([*command, "~nobody9/x"]) == 1
    assert "~nobody9" in capsys.readouterr().err
