"""The command line: commands as typed functions; this file only assembles them.

Nothing here imports torch; each command imports what it needs when it runs, so ``--help`` is quick.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from typing import Annotated

import typer

from quickstudy import __version__
from quickstudy.cli import (
    about,
    adapt,
    check,
    compare,
    correct,
    demo,
    derive,
    evaluate,
    export,
    improve,
    predict,
    train,
)
from quickstudy.cli.console import print_result, remarks, say
from quickstudy.cli.errors import FAILURE, INTERRUPTED, explain, sentence

app = typer.Typer(
    name="quickstudy",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: quickstudy demo",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_result(f"quickstudy {__version__}")
        raise typer.Exit


@app.callback()
def quickstudy(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a failure; may stand anywhere.")
    ] = False,
) -> None:
    """Teach a Transformer to learn.

    It is meta-trained on many small tasks, then picks up a new one from a handful of examples.
    """


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("adapt")(adapt.adapt)
app.command("check")(check.check)
app.command("predict")(predict.predict)
app.command("correct")(correct.correct)
app.command("improve")(improve.improve)
app.command("derive")(derive.derive)
app.command("export")(export.export)
app.command("list")(about.list_parts)
app.command("doctor")(about.doctor)
app.command("download")(about.download)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failure, 2 wrong use, 130 interrupted.

    A failure is one sentence on standard error that starts with «Error: »; with ``--debug`` its traceback comes first.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in options
    if debug:
        words.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with remarks(), warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("default")
                warnings.showwarning = _show_own_warning
            result = app(words, prog_name="quickstudy", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except Exception as error:
        return _report(error, debug=debug)
    if result == INTERRUPTED:
        say("Error: Interrupted.")
    return result if isinstance(result, int) else 0


def _show_own_warning(
    message: Warning | str, category: type[Warning], *where: object, **more: object
) -> None:
    """Pass on what quickstudy itself has to say; the warnings of other libraries are for ``--debug``."""
    if category.__module__.startswith("quickstudy."):
        say(f"Note: {sentence(str(message))}")


def _report(error: Exception, *, debug: bool) -> int:
    """Say what went wrong and return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        say(str(getattr(error, "message", error)).rstrip())
        return 2
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "quickstudy"
        text = re.sub(r"\.? Did you mean (.*)\?$", r" (did you mean \1?)", error.format_message())
        say(f"Error: {sentence(text).removesuffix('.')}; see «{path} --help».")
        return int(error.exit_code) or FAILURE
    if debug:
        traceback.print_exception(error)
    text, code = explain(error)
    say(f"Error: {text}")
    return code
