"""The progress line: the numbers when wanted, nothing when not."""

from __future__ import annotations

import io
import math
import sys

import pytest

from ngvi.terminal.progress import Progress, status_line

NUMBERS = {
    "iteration": 12,
    "elbo": -31.5452,
    "fisher_length": 3.14e-4,
    "step": 0.5,
    "draws": 1280,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_shows_the_numbers_and_the_time(capsys):
    with Progress(enabled=True, description="eight_schools") as bar:
        bar.update(iteration=11, elbo=-40.0, fisher_length=1.0, step=1.0, draws=640)
        bar.update(**NUMBERS)
    out, err = capsys.readouterr()
    assert out == ""
    # The last line must hold the last numbers, however fast the loop ran.
    last = err.rstrip().rpartition("\r")[2]
    for expected in (
        "eight_schools",
        "iteration  12",
        "ELBO -31.545",
        "Fisher length 3.14e-04",
        "step 0.5",
        "1,280 draws",
        "[00:0",
    ):
        assert expected in last, expected


def test_silent_when_disabled(capsys):
    with Progress(enabled=False, description="eight_schools") as bar:
        bar.update(**NUMBERS)
    assert capsys.readouterr() == ("", "")


def test_automatic_is_silent_in_a_pipe(capsys):
    with Progress(enabled=None) as bar:
        bar.update(**NUMBERS)
    assert not bar.enabled
    assert capsys.readouterr().err == ""


def test_automatic_speaks_to_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(enabled=None) as bar:
        bar.update(**NUMBERS)
    assert "ELBO -31.545" in terminal.getvalue()


def test_automatic_without_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(enabled=None) as bar:
        bar.update(**NUMBERS)
    assert not bar.enabled


def test_an_error_inside_passes_through_and_keeps_the_line(capsys):
    with pytest.raises(KeyboardInterrupt), Progress(enabled=True) as bar:
        bar.update(**NUMBERS)
        raise KeyboardInterrupt
    assert "ELBO -31.545" in capsys.readouterr().err
    bar.update(**NUMBERS)
    assert capsys.readouterr().err == ""


def test_says_that_it_starts(capsys):
    with Progress(enabled=True, description="radon"):
        pass
    assert "radon: starting" in capsys.readouterr().err


@pytest.mark.parametrize("missing", NUMBERS)
def test_numbers_left_out_are_left_out(missing):
    words = {
        "iteration": "iteration",
        "elbo": "ELBO",
        "fisher_length": "Fisher",
        "step": "step",
        "draws": "draws",
    }
    line = status_line(**{**NUMBERS, missing: None})
    for name, word in words.items():
        assert (word in line) == (name != missing)


def test_numbers_that_are_not_finite():
    line = status_line(elbo=-math.inf, fisher_length=math.nan, step=math.inf)
    assert line == "ELBO -inf  Fisher length nan  step inf"
