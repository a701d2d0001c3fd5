"""What the `ngvi` command understands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import ngvi

if TYPE_CHECKING:
    # Python names this type nowhere in public.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = """\
Fit Bayesian models by natural-gradient variational inference, and say how far the
answer can be trusted.
"""

EXAMPLES = """\
examples:
  ngvi models                                    what there is to try
  ngvi fit eight_schools                         a model of the zoo on its own data
  ngvi fit mine.py:model --data measurements.csv your model, your data
  ngvi report out/eight_schools/posterior.nc     the report of a saved fit
"""

FIT = """\
Fit a model; print the posterior's table and the verdict; write posterior.nc (open it
with ngvi.load or ArviZ) and report.html (open it in a browser).
"""

FIT_NOTES = """\
data:
  Every name in FILE is an argument of the model: a key of a JSON object, a column of
  a CSV file, an array of an npz file. Without --data, a zoo model takes its own
  data, and a file's model what the function data() beside it returns, if there is
  one.

exit code:
  0  trustworthy
  1  not converged, interrupted, or not to be trusted in full
  2  bad usage or bad input
"""


def parser() -> argparse.ArgumentParser:
    """The parser of `ngvi` and its commands."""
    top = argparse.ArgumentParser(
        prog="ngvi",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An abbreviated option would change its meaning with the next option added.
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"ngvi {ngvi.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_fit(commands)
    _add_models(commands)
    _add_report(commands)
    return top


def _add_fit(commands: Commands) -> None:
    fit = _command(commands, "fit", "fit a model", FIT, FIT_NOTES)
    fit.add_argument(
        "model",
        metavar="MODEL",
        help="a model of the zoo, or path/to/file.py:function",
    )
    fit.add_argument(
        "--data",
        metavar="FILE",
        type=Path,
        help="the model's arguments: a file "
        "that ends in .json, .csv or .npz (see below)",
    )
    fit.add_argument(
        "--family",
        choices=("gaussian", "mixture", "mean-field"),
        default="gaussian",
        help="of what is fitted: a Gaussian (the default), a mixture of Gaussians, or "
        "for each site the family of its own support",
    )
    fit.add_argument(
        "--covariance",
        choices=("auto", "full", "structured", "low-rank", "diagonal"),
        default="auto",
        help="of the Gaussian fitted (auto: structured where plates allow and there "
        "are more than 200 dimensions, else full up to 1,000)",
    )
    fit.add_argument(
        "--refine",
        action="store_true",
        help="go on until the verdict is good: a fuller covariance, importance "
        "weights, a mixture, at last NUTS",
    )
    fit.add_argument(
        "--seed",
        metavar="N",
        type=_natural,
        default=0,
        help="of the random draws; the same seed gives the same answer (default 0)",
    )
    fit.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=Path,
        help="folder of its own, from which a fit that was killed goes on to the same "
        "answer",
    )
    fit.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="folder for posterior.nc and report.html (default out/NAME)",
    )
    fit.add_argument(
        "--float32",
        action="store_true",
        help="compute in single precision; for models whose numbers are all near 1",
    )
    shown = fit.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="print only the verdict")
    shown.add_argument("--json", action="store_true", help="print one JSON object")


def _add_models(commands: Commands) -> None:
    models = _command(
        commands, "models", "list the zoo's models", "List the models of the zoo."
    )
    models.add_argument("--json", action="store_true", help="print a JSON object")


def _add_report(commands: Commands) -> None:
    report = _command(
        commands,
        "report",
        "write the report of a saved fit",
        "Write the HTML report of a fit that `ngvi fit` or posterior.save() saved.",
    )
    report.add_argument("file", metavar="FILE.nc", type=Path)
    report.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the page (default: report.html beside posterior.nc, NAME.html beside "
        "any other NAME.nc)",
    )


def _command(
    commands: Commands, name: str, short: str, long: str, notes: str = ""
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=notes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--debug", action="store_true", help="show a Python traceback with an error"
    )
    return command


def _natural(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return value
