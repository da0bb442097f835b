"""The command line as a stranger meets it: help, words, exit codes, and what goes to which stream."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from quickstudy import __version__
from quickstudy.cli import app, errors, main
from quickstudy.cli.errors import explain
from quickstudy.doctor import known_problems

COMMANDS = (
    "demo",
    "train",
    "evaluate",
    "adapt",
    "predict",
    "correct",
    "improve",
    "list",
    "doctor",
    "download",
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "quickstudy", *words], capture_output=True, text=True, timeout=280
    )


def test_help_is_quick_and_imports_no_torch() -> None:
    program = (
        "import sys, time; from quickstudy.cli import main; code = main(['--help']);"
        "print(time.process_time(), 'torch' in sys.modules, code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    # Processor time since the interpreter began: what other programs do to the machine does not count.
    seconds, torch_is_there, code = done.stderr.split()
    assert float(seconds) < 0.5
    assert (torch_is_there, code) == ("False", "0")
    assert all(command in done.stdout for command in COMMANDS)


def test_the_module_is_the_command_too() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"quickstudy {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"Usage: quickstudy {command}")
    assert shown.err == ""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["tarin"], "did you mean 'train'?"),
        (["evaluate"], "Missing argument 'ARTIFACT'"),
        (["evaluate", "x", "--way", "one"], "'--way'"),
        (["evaluate", "x", "--way", "1"], "greater than or equal to 2"),
        (["evaluate", "x", "--split", "all"], "'train', 'validation', 'test'"),
        (["evaluate", "x", "--wya", "5"], "--way"),
        (["train", "--steps", "0"], "'--steps'"),
        (["predict", "task"], "INPUT"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: ")
    assert shown.err.count("\n") == 1
    assert reason in shown.err


def test_no_command_shows_the_help_and_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "quickstudy demo" in capsys.readouterr().err


def test_list_names_what_train_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"protonet", "ridge", "in_context", "maml", "linear_head"} <= set(listed["learners"])
    assert {"image", "vector", "text"} <= set(listed["encoders"])
    assert {"glyphs", "omniglot", "images", "text"} <= set(listed["sources"])
    assert all(line for part in listed.values() for line in part.values())
    assert main(["list"]) == 0
    assert "protonet" in capsys.readouterr().out


def test_doctor_finds_this_machine_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["well"]
    assert found["packages"]["torchvision"] is None
    assert int(found["facts"]["cores"]) >= 1
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("All is well.\n")


@pytest.mark.parametrize(
    ("versions", "failures", "words"),
    [
        ({"torch": "2.13.0+cpu", "lightning": "2.6.2"}, {}, ["2.6.2", "malware", "uninstall"]),
        ({"torch": "2.13.0", "lightning": "2.6.3"}, {}, ["2.6.3", "malware"]),
        ({"torch": "2.4.1"}, {}, ["2.4.1", "2.6 to 2.13"]),
        ({"torch": "2.15.0"}, {}, ["2.15.0", "2.6 to 2.13"]),
        ({}, {}, ["torch is not installed"]),
        ({"torch": "2.13.0"}, {"torch": "OSError: libgomp"}, ["torch 2.13.0", "libgomp"]),
        (
            {"torch": "2.13.0", "torchvision": "0.28.0"},
            {"torchvision": "RuntimeError: operator torchvision::nms does not exist"},
            ["torchvision 0.28.0", "nms", "uninstall torchvision"],
        ),
    ],
)
def test_doctor_knows_what_breaks(
    versions: dict[str, str], failures: dict[str, str], words: list[str]
) -> None:
    (problem,) = known_problems(versions.get, failures.get)
    assert all(word in problem for word in words)


def test_doctor_is_content_with_working_packages() -> None:
    versions = {"torch": "2.13.0", "lightning": "2.6.6", "torchvision": "0.28.0"}
    assert list(known_problems(versions.get, lambda module: None)) == []


def test_a_sick_machine_fails_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quickstudy.doctor.known_problems", lambda: iter(["lightning is bad."]))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "Error: lightning is bad.\n"


@pytest.mark.parametrize("name", errors.OWN_ERRORS)
def test_the_errors_that_are_explained_exist(name: str) -> None:
    module, _, error = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), error), Exception)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), 1, ["disk is full", "a.bin"]),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, ["disk is full"]),
        (FileNotFoundError(errno.ENOENT, "No such file", "b.csv"), 1, ["no file or folder b.csv"]),
        (PermissionError(errno.EACCES, "Permission denied", "c"), 1, ["permissions"]),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), 1, ["d is a folder"]),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "e"), 1, ["e is not a folder"]),
        (OSError(errno.EIO, "Input/output error", "f"), 1, ["input/output error", "(f)"]),
        (ModuleNotFoundError("No", name="lightning.pytorch"), 1, ["quickstudy[train]"]),
        (ModuleNotFoundError("No", name="elsewhere"), 1, ["elsewhere", "install quickstudy anew"]),
        (MemoryError(), 1, ["not enough memory"]),
        (RuntimeError("two\nlines"), 1, ["RuntimeError: two lines", "--debug"]),
        (errors.WrongUse("no"), 2, ["no."]),
        (errors.Failure("no"), 1, ["no."]),
        (errors.Interrupted("go on with «x»"), 130, ["go on with «x»."]),
    ],
)
def test_a_failure_is_explained_in_one_line(error: Exception, code: int, words: list[str]) -> None:
    text, given = explain(error)
    assert given == code
    assert "\n" not in text
    assert text.endswith(".")
    assert all(word in text for word in words)


def test_only_debug_shows_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "nothing")
    assert main(["evaluate", missing]) == 1
    plain = capsys.readouterr().err
    assert plain.startswith("Error: ")
    assert plain.count("\n") == 1
    assert main(["evaluate", missing, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert main(["--debug", "evaluate", missing]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_command_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quickstudy.doctor.examine", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "Error: Interrupted.\n"


def documented_commands() -> list[str]:
    """Every command in the shell blocks of the reference."""
    reference = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
    blocks = reference.read_text(encoding="utf-8").split("```sh\n")[1:]
    lines = [line for block in blocks for line in block.split("```")[0].splitlines()]
    return [line.split(" #")[0].strip() for line in lines if line.startswith("quickstudy ")]


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_understood(line: str) -> None:
    program, *words = shlex.split(line)
    group = typer.main.get_command(app)
    assert program == group.name
    options = {option for parameter in group.params for option in parameter.opts}
    if words[0].startswith("-"):
        assert set(words) <= {*options, "--help"}
        return
    command = group.commands[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        assert context.params


def test_completion_knows_the_commands() -> None:
    environment = {"COMP_WORDS": "quickstudy ev", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from quickstudy.cli import main; main([])"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment, "_QUICKSTUDY_COMPLETE": "complete_bash"},
    )
    assert done.stdout.split() == ["evaluate"]
