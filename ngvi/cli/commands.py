"""What each command of `ngvi` does; each returns the exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ngvi
from ngvi import zoo
from ngvi.bayes.archive import Archive, check_writable, plain
from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.bayes.posterior import Posterior
from ngvi.cli import data_files, screen
from ngvi.cli.choose import Chosen, arrange, choose, left_out, quoted
from ngvi.cli.errors import InputError, in_words
from ngvi.cli.jax_options import configured, kept_programs
from ngvi.report import write

OK, DOUBTFUL, BAD_INPUT = 0, 1, 2

POSTERIOR, REPORT = "posterior.nc", "report.html"


def fit(options: argparse.Namespace) -> int:
    """`ngvi fit`: fit, show, write."""
    bare = options.quiet or options.json
    with (
        kept_programs(),
        # Before any array is made.
        configured({"jax_enable_x64": not options.float32}),
        _printing(allowed=not bare),
    ):
        chosen = choose(options.model)
        data, source = _data(chosen, options.data)
        args, kwargs = arrange(chosen.model, data, source)
        with _writable(options.out or Path("out") / chosen.name) as folder:
            posterior = _fit(chosen, args, kwargs, data, options)
            if not bare:
                print(f"{posterior.table()}\n", flush=True)
            files, archive = _write(posterior, folder)
    unset = left_out(chosen.model, data)
    if unset and "observed_data" not in archive.groups:
        screen.note(
            "warning: nothing is observed, so this is a fit to the prior; the data "
            f"do not give {quoted(unset)}"
        )
    if options.json:
        print(
            json.dumps(_as_json(posterior, files, archive), allow_nan=False, indent=2)
        )
    elif options.quiet:
        print(posterior.verdict)
    else:
        print(screen.outcome(posterior, files, archive))
    return OK if posterior.verdict.level == "trustworthy" else DOUBTFUL


def models(options: argparse.Namespace) -> int:
    """`ngvi models`: the zoo's names and titles."""
    try:
        titles = {name: zoo.title(name) for name in zoo.names()}
    except OSError as error:
        raise InputError(str(error)) from error
    print(json.dumps(titles, indent=2) if options.json else screen.listing(titles))
    return OK


def report(options: argparse.Namespace) -> int:
    """`ngvi report`: the page of a saved fit."""
    file: Path = options.file
    if not file.is_file():
        raise InputError(f"{file}: there is no such file.")
    out = options.out or file.with_name(
        REPORT if file.name == POSTERIOR else f"{file.stem}.html"
    )
    if out.is_dir():
        raise InputError(
            f"--out {out} is a folder; name a file, such as {out / REPORT}."
        )
    try:
        archive = Archive.read(file)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    except Exception as error:
        raise InputError(
            f"{file} is not a fit that ngvi saved ({in_words(error)})."
        ) from error
    try:
        check_writable(out)
        print(write(archive, out))
    except OSError as error:
        raise InputError(error.strerror or str(error)) from error
    return OK


# -- the steps of fit ------------------------------------------------------------------


def _printing(*, allowed: bool) -> AbstractContextManager[Any]:
    """What a model's file prints must not mix with an answer that a program reads."""
    return nullcontext() if allowed else redirect_stdout(sys.stderr)


def _data(chosen: Chosen, file: Path | None) -> tuple[dict[str, Any], str | None]:
    """The model's arguments by name, and what a message calls their source."""
    if file is not None:
        return data_files.read(file), str(file)
    if chosen.data is None:
        return {}, None
    try:
        data = chosen.data()
    except Exception as error:
        raise chosen.explain(error) from error
    if not isinstance(data, dict):
        raise InputError(
            f"data() in {chosen.shown} must return a dict from the model's arguments "
            f"to values; it returned {type(data).__name__}."
        )
    return data, f"data() in {chosen.shown}"


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """A folder that can be written to, seen before a long fit rather than after; one
    made for a fit that fails is taken away again."""
    above = [folder, *folder.parents]
    if blocking := [p for p in above if p.exists() and not p.is_dir()]:
        raise InputError(f"--out {folder}: {blocking[0]} is a file, not a folder.")
    try:
        made = [p for p in above if not p.exists()]
        for name in (POSTERIOR, REPORT):
            check_writable(folder / name)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from error
    try:
        yield folder
    except BaseException:
        for path in made:
            with suppress(OSError):  # not empty: something was written after all
                path.rmdir()
        raise


def _fit(
    chosen: Chosen,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    data: dict[str, Any],
    options: argparse.Namespace,
) -> Posterior:
    try:
        posterior = ngvi.fit(
            chosen.model,
            *args,
            family=options.family,
            covariance=options.covariance,
            seed=options.seed,
            checkpoint=options.checkpoint,
            progress=False if options.quiet else None,
            **kwargs,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("before the first step; nothing is saved") from None
    except Exception as error:
        raise chosen.explain(error, data_files.described(data)) from error
    # Not `posterior.diagnostics`, which computes k-hat first: who pressed Ctrl-C wants
    # an answer at once.
    if posterior.record.diagnostics.stop_reason == INTERRUPTED:
        screen.note("interrupted: saving the best state so far …")
    elif options.refine:
        posterior = _refined(posterior, options.quiet)
    posterior.name = chosen.name
    return posterior


def _refined(posterior: Posterior, quiet: bool) -> Posterior:
    try:
        refined = posterior.refine(progress=False if quiet else None)
    except KeyboardInterrupt:
        screen.note("interrupted: saving the fit before it was refined …")
        return posterior
    if not quiet:
        screen.note(f"refined, rung by rung\n{refined.refinement}")
    return refined


def _write(posterior: Posterior, folder: Path) -> tuple[dict[str, Path], Archive]:
    files = {"posterior": folder / POSTERIOR, "report": folder / REPORT}
    try:
        archive = posterior.archive()
        archive.write(files["posterior"])
        write(archive, files["report"])
    except (OSError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise InputError(
            f"The fit is done, but it cannot be saved. {reason or error}"
        ) from error
    return files, archive


def _as_json(
    posterior: Posterior, files: dict[str, Path], archive: Archive
) -> dict[str, Any]:
    return {
        "model": posterior.name,
        "ngvi": ngvi.__version__,
        "verdict": plain(asdict(posterior.verdict)),
        "diagnostics": plain(asdict(posterior.diagnostics)),
        "summary": plain(posterior.summary().to_dict(orient="index")),
        "notes": archive.record.get("notes", []),
        "files": {name: str(path) for name, path in files.items()},
    }
