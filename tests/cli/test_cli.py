"""The `ngvi` command, called in this process: answers, exit codes, error messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import ngvi
from ngvi import zoo
from ngvi.bayes import fit_in_memory
from ngvi.cli import commands
from ngvi.cli.choose import arrange, left_out
from ngvi.cli.errors import InputError
from ngvi.cli.main import main

MODELS = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

limit = 3


def model(x, y=None):
    print("a line from the model")
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(slope * jnp.asarray(x), 1.0), obs=y)


def raises(x):
    raise RuntimeError(f"limit {limit}\\nexceeded")


def precision(x):
    raise RuntimeError(jnp.zeros(()).dtype)


def own_data(x):
    raise RuntimeError(x)


def nothing():
    pass


def data():
    return {"x": 7}
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of our own to work in; what a run changes is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "xy.csv").write_text("x,y\n1,2\n2,2.5\n3,7\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def bare_report(monkeypatch):
    """A report without pictures, which have tests of their own and take seconds."""
    monkeypatch.setattr(commands, "write", lambda archive, path: path.touch())


def run(capsys, line: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command line."""
    code = main(line.split())
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def expected_code(level: str) -> int:
    return 0 if level == "trustworthy" else 1


# -- answers ---------------------------------------------------------------------------


def test_fit_of_a_zoo_model_and_its_report(capsys, place):
    before = jax.config.read("jax_enable_x64")
    code, out, _ = run(capsys, "fit eight_schools")
    folder = place / "out" / "eight_schools"
    loaded = ngvi.bayes.load.load(folder / "posterior.nc")
    assert loaded.name == "eight_schools"
    assert code == expected_code(loaded.verdict.level)
    assert out.startswith("eight_schools: 10 dimensions, full covariance, ELBO -31.")
    assert "theta[7]" in out
    assert f"Verdict    {loaded.verdict.level}\n" in out
    assert "s compiling\n" in out
    for name in ("posterior.nc", "report.html"):
        assert f"out/eight_schools/{name}" in out
    assert loaded.sample(5)["theta"].dtype == np.float64
    assert jax.config.read("jax_enable_x64") == before

    page = (folder / "report.html").read_text(encoding="utf-8")
    (folder / "report.html").unlink()
    code, out, _ = run(capsys, "report out/eight_schools/posterior.nc")
    assert (code, out) == (0, "out/eight_schools/report.html\n")
    assert (folder / "report.html").read_text(encoding="utf-8") == page

    (folder / "posterior.nc").rename(place / "run.nc")
    assert run(capsys, "report run.nc")[1] == "run.html\n"
    assert run(capsys, "report run.nc --out new/page.html")[1] == "new/page.html\n"
    assert (place / "run.html").is_file() and (place / "new" / "page.html").is_file()


def test_json_is_all_there_is_on_stdout(capsys, place, bare_report):
    line = "fit eight_schools --json --seed 3 --out here"
    code, out, _ = run(capsys, line)
    answer = json.loads(out)
    assert answer["model"] == "eight_schools"
    assert answer["diagnostics"]["seed"] == 3
    assert code == expected_code(answer["verdict"]["level"])
    assert answer["summary"]["mu"].keys() >= {"mean", "sd", "q5", "median", "q95"}
    assert answer["files"] == {
        "posterior": "here/posterior.nc",
        "report": "here/report.html",
    }
    assert (place / "here" / "posterior.nc").is_file()
    assert not (place / "out").exists()


def test_a_function_in_a_file_with_a_csv_file(capsys, place, bare_report):
    line = "fit mine.py:model --data xy.csv --covariance diagonal --quiet"
    code, out, err = run(capsys, line)
    # The exact posterior is normal: no doubt about it.
    assert code == 0
    assert out.startswith("trustworthy: ") and out.count("\n") == 1
    assert "a line from the model" in err
    posterior = ngvi.bayes.load.load(place / "out" / "mine" / "posterior.nc")
    # Σ x y / (1 + Σ x²), and the constant of that precision.
    assert posterior.diagnostics.covariance == "diagonal"
    assert posterior.mean["slope"] == pytest.approx(28 / 15, abs=1e-4)
    assert posterior.sd["slope"] == pytest.approx(15**-0.5, rel=1e-3)


def test_a_fit_that_was_killed_goes_on(capsys, place, bare_report, monkeypatch):
    line = "fit mine.py:model --data xy.csv --quiet --checkpoint kept"
    assert main(line.split()) == 0
    assert list((place / "kept").glob("checkpoint-*"))
    # Nothing is left to be done but the verdict.
    monkeypatch.setattr("ngvi.bayes.judged.elsewhere", lambda posterior: None)
    monkeypatch.setattr(
        fit_in_memory, "compiled_advance", lambda *_: pytest.fail("a step")
    )
    assert main(line.split()) == 0
    assert main([*line.split(), "--seed", "1"]) == 2
    assert "a fit with another seed" in capsys.readouterr().err


def test_a_family_and_what_refines_it(capsys, place, bare_report):
    line = "fit mine.py:model --data xy.csv --family mean-field --refine"
    code, out, err = run(capsys, line)
    assert code == 0
    assert "mine: 1 dimensions, a mean field" in out
    assert "refined, rung by rung" in err
    posterior = ngvi.bayes.load.load(place / "out" / "mine" / "posterior.nc")
    assert posterior.mean["slope"] == pytest.approx(28 / 15, abs=1e-4)


def test_data_without_the_observations_is_warned_about(capsys, place, bare_report):
    (place / "x.json").write_text('{"x": 1.0}')
    code, _, err = run(capsys, "fit mine.py --data x.json --quiet")
    assert code == 0
    assert "warning: nothing is observed" in err and "'y'" in err


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupted_fit_is_saved(capsys, place, monkeypatch, bare_report, after):
    advance = fit_in_memory.compiled_advance
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise KeyboardInterrupt
        return advance(*arguments)

    monkeypatch.setattr(fit_in_memory, "compiled_advance", interrupted)
    code, out, err = run(capsys, "fit eight_schools")
    assert code == 1
    assert "interrupted: saving the best state so far" in err
    assert "do not trust" in out
    posterior = ngvi.bayes.load.load(place / "out" / "eight_schools" / "posterior.nc")
    assert "interrupted" in posterior.diagnostics.stop_reason


def test_an_interrupt_before_the_first_step_leaves_nothing(capsys, place, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ngvi.bayes.run.compiled_begin", interrupted)
    code, out, err = run(capsys, "fit eight_schools")
    assert (code, out) == (1, "")
    assert "nothing is saved" in err
    assert not (place / "out").exists()


def test_models_are_listed(capsys):
    code, out, _ = run(capsys, "models")
    assert code == 0
    lines = out.splitlines()
    for name in zoo.names():
        assert any(s.split() == [name, *zoo.title(name).split()] for s in lines)
    code, out, _ = run(capsys, "models --json")
    assert json.loads(out) == {name: zoo.title(name) for name in zoo.names()}


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "ngvi", "fit", "eight_scools"]
    root = str(Path(ngvi.__file__).parents[1])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ngvi: error: There is no model 'eight_scools'")
    assert done.stdout == ""


# -- bad usage and bad input -----------------------------------------------------------


USAGE = [
    "",
    "fit",
    "nothing",
    "fit eight_schools --covariance round",
    "fit eight_schools --seed -1",
    "fit eight_schools --seed x",
    "fit eight_schools --quiet --json",
    "fit eight_schools --cov full",
    "report",
]


@pytest.mark.parametrize("line", USAGE)
def test_bad_usage(capsys, line):
    with pytest.raises(SystemExit) as exit_:
        main(line.split())
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err


BAD = [
    ("fit eight_scools", ["'eight_scools'", "Did you mean eight_schools"]),
    ("fit mine", ["ngvi fit mine.py:model"]),
    ("fit some/where", ["'some/where'", "path/to/file.py:function"]),
    ("fit no.py:model", ["no.py", "no such file"]),
    ("fit mine.py:modl", ["'modl'", "Did you mean model?", "raises, precision"]),
    ("fit mine.py:limit", ["'limit' in mine.py is not a function"]),
    ("fit empty.py", ["no function 'model'", "No function is defined"]),
    ("fit syntax.py", ["SyntaxError", "syntax.py, line 2: def broken(:"]),
    ("fit imports.py", ["No module named 'no_such_package'", "imports.py, line 1"]),
    ("fit nodata.py", ["The model needs 'x' and 'n'", "--data"]),
    ("fit otherdata.py", ["The model needs 'x':"]),
    ("fit unused.py", ["nothing to infer"]),
    ("fit baddata.py", ["data() in baddata.py", "dict", "list"]),
    ("fit raisingdata.py", ["ZeroDivisionError", "raisingdata.py, line 2: 1 / 0"]),
    ("fit mine.py:nothing --data x.json", ["x.json holds 'x'", "takes no argument"]),
    (
        "fit mine.py:raises --data x.json",
        ["limit 3 exceeded", "line 16: raise", "x = "],
    ),
    ("fit mine.py:own_data", ["RuntimeError: 7"]),
    ("fit mine.py:precision --data x.json", ["float64"]),
    ("fit mine.py:precision --data x.json --float32", ["float32"]),
    ("fit mine.py --data no.csv", ["no.csv", "no such file"]),
    ("fit mine.py --data text.csv", ["text.csv, line 3: column 'y' holds 'red'"]),
    ("fit mine.py --data names.csv", ["lacks 'x'", "holds 'z'", "It takes x, y."]),
    ("fit mine.py --data nan.csv", ["'y'", "NaN", "1 of 2"]),
    ("fit mine.py --data shapes.json", ["(3,)", "(2,)"]),
    ("fit mine.py --data corrupt.json", ["corrupt.json is not valid JSON"]),
    ("fit eight_schools --data xy.csv", ["lacks 'sigma'", "It takes sigma, y."]),
    ("fit eight_schools --out taken", ["taken is a file, not a folder"]),
    ("fit eight_schools --out taken/x", ["taken is a file, not a folder"]),
    ("fit eight_schools --out full", ["posterior.nc", "it is a folder"]),
    ("report no.nc", ["no.nc: there is no such file"]),
    ("report xy.csv", ["xy.csv is not a netCDF file"]),
    ("report xy.csv --out full", ["full is a folder"]),
]

FILES = {
    "empty.py": "",
    "syntax.py": "\ndef broken(:",
    "imports.py": "import no_such_package",
    "nodata.py": "def model(x, n, y=None):\n    pass",
    "otherdata.py": "def model(x):\n    pass\ndef data(path):\n    pass",
    "unused.py": "def model():\n    pass\ndef data():\n    1 / 0",
    "baddata.py": "def model(x):\n    pass\ndef data():\n    return [1]",
    "raisingdata.py": "def data():\n    1 / 0\ndef model(x):\n    pass",
    "x.json": '{"x": 1.0}',
    "text.csv": "x,y\n1,2\n1,red\n",
    "names.csv": "z,y\n1,2\n",
    "nan.csv": "x,y\n1,\n1,2\n",
    "shapes.json": '{"x": [1, 2, 3], "y": [1, 2]}',
    "corrupt.json": '{"x": ',
    "taken": "",
    "full/posterior.nc/x": "",
}


@pytest.mark.parametrize(("line", "pieces"), BAD)
def test_bad_input_is_explained(capsys, place, line, pieces):
    for name, content in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")
    before = sorted(p for p in place.rglob("*") if "__pycache__" not in p.parts)
    code, _, err = run(capsys, line)
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("ngvi: error: ")
    assert all(piece in last for piece in pieces), last
    assert "Traceback" not in err
    # No empty folder is left behind.
    after = sorted(p for p in place.rglob("*") if "__pycache__" not in p.parts)
    assert after == before


def test_debug_shows_the_traceback(capsys):
    code, _, err = run(capsys, "fit eight_scools --debug")
    assert code == 2
    assert "Traceback" in err and "UnknownModel" in err


def test_a_folder_that_cannot_be_written_is_seen_before_the_fit(
    capsys, place, monkeypatch
):
    def refused(path):
        raise PermissionError(13, f"Cannot write {path}: Permission denied")

    def never(*args, **kwargs):
        raise AssertionError("the fit ran")

    monkeypatch.setattr(commands, "check_writable", refused)
    monkeypatch.setattr(ngvi, "fit", never)
    code, _, err = run(capsys, "fit eight_schools")
    assert code == 2
    assert "Permission denied" in err


def test_a_disk_that_fills_up_is_explained(capsys, monkeypatch):
    def full(self, path):
        raise OSError(28, f"Cannot write {path}: No space left on device")

    monkeypatch.setattr(commands.Archive, "write", full)
    code, out, err = run(capsys, "fit eight_schools")
    assert code == 2
    assert "theta[0]" in out
    assert "The fit is done, but it cannot be saved." in err and "No space" in err


def test_an_unforeseen_error_is_short_too(capsys, monkeypatch):
    def broken():
        raise AssertionError("what is this")

    monkeypatch.setattr(zoo, "names", broken)
    code, _, err = run(capsys, "models")
    assert code == 2
    assert err.startswith("ngvi: error: AssertionError: what is this")
    assert err.count("\n") == 1


# -- data as arguments -----------------------------------------------------------------


def test_arguments_go_by_name():
    def model(x, y=None): ...

    data = {"y": 2, "x": 1}
    assert arrange(model, data, "d") == ((), data)
    assert left_out(model, {"x": 1}) == ["y"]


def test_arguments_that_share_a_name_with_an_option_of_fit_go_by_position():
    def model(seed, n, y=None, *, z): ...

    data = {"z": 3, "seed": 1, "n": 2}
    assert arrange(model, data, "d") == ((1, 2, None), {"z": 3})


def test_positional_only_arguments_go_by_position():
    def model(x, /, y): ...

    assert arrange(model, {"y": 2, "x": 1}, "d") == ((1, 2), {})


def test_a_keyword_that_shares_a_name_with_an_option_of_fit_is_refused():
    def model(x, *, seed): ...

    with pytest.raises(InputError, match="'seed' has the name of an option"):
        arrange(model, {"x": 1, "seed": 1}, "d")


def test_open_ended_models_take_any_name():
    def model(x, *rest, **others): ...

    data = {"x": 1, "y": 2}
    assert arrange(model, data, "d") == ((), data)
    with pytest.raises(InputError, match="lacks 'x', which the model needs"):
        arrange(model, {"y": 2}, "d")
