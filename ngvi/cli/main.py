"""The `ngvi` command."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from types import MappingProxyType

from ngvi.cli import commands
from ngvi.cli.arguments import parser
from ngvi.cli.errors import InputError, in_words
from ngvi.cli.screen import note

COMMANDS: MappingProxyType[str, Callable[..., int]] = MappingProxyType(
    {"fit": commands.fit, "models": commands.models, "report": commands.report}
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; by default those of this process.

    Returns:
        The exit code: 0 for a trustworthy answer, 1 for one that did not converge, was
        interrupted or is not to be trusted in full, 2 for bad usage or input.

    Raises:
        SystemExit: the arguments were not understood (code 2), or --help or --version
            was asked for (code 0).
    """
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except BrokenPipeError:
        # The reader has seen enough (`ngvi models | head`); Python would complain when
        # it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return commands.OK
    except KeyboardInterrupt as interrupt:
        note(f"interrupted {interrupt}".strip())
        return commands.DOUBTFUL
    except Exception as error:
        if options.debug:
            traceback.print_exception(error)
        note(f"error: {_in_words(error)}")
        return commands.BAD_INPUT


def _in_words(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"{in_words(error)} This should not happen; --debug shows where it did."
