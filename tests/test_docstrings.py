"""The examples in docstrings, and the README's, run and give what they show."""

import doctest
import importlib
import itertools
import logging
import pkgutil
import re
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import ngvi

ROOT = Path(__file__).parents[1]


def modules():
    found = pkgutil.walk_packages(ngvi.__path__, "ngvi.")
    return [m.name for m in found if not m.name.startswith(("ngvi.models", "ngvi.__"))]


def test_docstring_examples():
    results = [doctest.testmod(importlib.import_module(name)) for name in modules()]
    assert sum(r.attempted for r in results) >= 4
    assert sum(r.failed for r in results) == 0


def test_readme_example(tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    fit, search, curvature, nets, process = blocks
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    names = {"x": x, "y": x.sum(1) + rng.normal(size=50), "x_new": x[:5]}
    exec(fit, names)
    assert "trustworthy" in capsys.readouterr().out
    assert names["draws"]["beta"].shape == (2000, 3)
    loaded = ngvi.load("posterior.nc")
    np.testing.assert_allclose(loaded.mean["beta"], names["posterior"].mean["beta"])
    exec(search, names)
    np.testing.assert_allclose(names["result"].x, [1.0, 1.0], atol=1e-4)
    exec(curvature, names)
    assert names["F"].dim == 131
    assert "Kronecker 5 ⊗ 16" in capsys.readouterr().out
    exec(nets, names)
    assert names["net"].score(names["x"], names["y"]) > 0.9
    exec(process, names)
    assert names["process"].score(names["x"], names["y"]) > 0.9


def run_guide(name, **names):
    """What the code of a page, run from top to bottom, has defined after each block."""
    text = (ROOT / "docs" / name).read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, names)
        yield dict(names)


def outlines(text):
    """The words of each line, numbers aside."""
    return [re.sub(r"[-\d.,]+", "0", line).split() for line in text.splitlines()]


def test_home(capsys):
    [names] = run_guide("index.md")
    assert names["posterior"].verdict.level == "trustworthy"
    assert "trustworthy" in capsys.readouterr().out
    np.testing.assert_allclose(names["search"].x, [2.07, 0.096], atol=0.01)


def test_start_guide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, fit, *_, names = run_guide("start.md")
    assert fit["posterior"].verdict.level == "trustworthy"
    printed = outlines(capsys.readouterr().out)
    page = (ROOT / "docs/start.md").read_text()
    shown = re.findall(r"^prints\n\n(.*?)\n\n(?=\S)", page, re.DOTALL | re.MULTILINE)
    lines = outlines("\n".join(shown))
    assert len(lines) > 20 and all(line in printed for line in lines)
    assert names["better"].verdict.level == "trustworthy"
    assert names["precise"].std() < names["same"].std()


def test_coming_from_guide():
    svi, search, _, nets = run_guide("coming_from.md")
    assert svi["predicted"].shape == (500, 3)
    sd = svi["predicted"].std(0)
    assert (sd > 0.7).all() and (sd < 1.4).all()
    np.testing.assert_allclose(search["es"].result.x, 1, atol=1e-4)
    assert nets["found"].fun < 1e-9
    assert nets["info"].loss[-1] < nets["info"].loss[0]


def test_families_guide():
    *_, names = run_guide("families.md")
    fitted = names["incomes"].fit(names["x"])
    np.testing.assert_allclose(fitted.concentration, [1.5, 3.0], rtol=0.1)
    expected = scipy.stats.pareto(1.5, scale=10.0).logpdf(20.0)
    np.testing.assert_allclose(names["incomes"].log_prob(20.0)[0], expected, rtol=1e-9)


def test_families_of_sites_guide():
    counts, normal, box = run_guide("families_of_sites.md")
    rate = counts["posterior"].approximation.factors["rate"]
    np.testing.assert_allclose(rate.concentration, [10, 3, 13])
    np.testing.assert_allclose(rate.rate, 3)
    points, q = normal["points"], normal["joint"].approximation.factors["mu, cov"]
    np.testing.assert_allclose(q.loc[0], points.sum(0) / 21, atol=1e-6)
    np.testing.assert_allclose([q.kappa[0], q.df[0]], [21, 24])
    factors = normal["regression"].approximation.factors
    assert list(factors) == ["a, b", "variance"]
    slope, _ = np.polyfit(*points.T, 1)
    np.testing.assert_allclose(factors["a, b"].mean[0, 1], slope, atol=0.02)
    # Each datum is level + effect + noise, of variances 1, ½ and ½.
    level = box["data"].sum() / 4
    np.testing.assert_allclose(box["box"].mean["level"], level, rtol=5e-3)


def test_black_boxes_guide(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    # The page makes the logger talk; both are put back.
    monkeypatch.setattr(logging.getLogger("ngvi.nes"), "handlers", [])
    caplog.set_level("INFO", logger="ngvi.nes")
    after = list(run_guide("black_boxes.md"))
    fit, net, bought, failing, *_, asked, _, packed, mixed, last = after
    np.testing.assert_allclose(fit["found"].x, [3, 0.4, 1], atol=0.1)
    assert net["found"].x["in"].shape == (2, 4) and net["found"].success
    np.testing.assert_allclose(bought["found"].x, [4, 12.5], rtol=1e-4)
    assert bought["found"].maxcv <= 1e-6
    assert failing["found"].nfailed > 0
    assert failing["found"].first_error == "RuntimeError: the solver diverged"
    np.testing.assert_allclose(asked["search"].result.x, 1, atol=1e-5)
    np.testing.assert_allclose(last["runs"].best_point, last["goals"], atol=1e-4)
    # The best of all 2¹⁰ knapsacks.
    bits = np.array(list(itertools.product((0, 1), repeat=10)))
    assert packed["values"].min() == np.asarray(packed["loss"](bits)).min()
    assert mixed["state"][1].q.probs[2] > 0.8
    assert last["found"].fun <= 1e-9 and last["found"].stops
    assert (tmp_path / "search.png").stat().st_size > 10_000


def test_fisher_guide():
    *_, names = run_guide("fisher.md")
    sums = np.asarray(names["probabilities"]).sum(1)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)
    assert int(names["running"].batches) == 3
    assert names["fit"].converged


def test_optimizers_guide():
    *_, names = run_guide("optimizers.md")
    loss = names["optimizer"].apply
    assert loss is names["net"]
    info = names["info"]
    assert info.loss.shape == (34,) and info.loss[-1] < 0.2
    assert names["records"].info.kl.max() <= 0.01


def test_nets_guide():
    estimator, any_model = run_guide("nets.md")
    sums = np.asarray(estimator["probabilities"]).sum(1)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)
    x, y = estimator["x_test"], estimator["y_test"]
    assert estimator["net"].score(x, y) > 0.9
    assert int(any_model["state"].steps) == 50
    assert any_model["draws"][0]["w"].shape == (10, 1, 20)
    assert np.isfinite(any_model["predicted"].mean).all()


@pytest.mark.slow
def test_trust_guide(capsys):
    def model(x, y=None):
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        with numpyro.plate("row", x.shape[0]):
            numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    x = np.linspace(-1, 1, 20)
    (names,) = run_guide("trust.md", ngvi=ngvi, model=model, x=x, y=x)
    assert names["calibration"].calibrated
    assert "slope" in capsys.readouterr().out


@pytest.mark.slow
def test_mixtures_guide():
    (names,) = run_guide("mixtures.md")
    assert abs(names["posterior"].log_evidence) < 0.1
    assert names["better"].verdict.level == "trustworthy"


@pytest.mark.slow
def test_conjugate_guide():
    *_, names = run_guide("conjugate.md")
    assert names["lda"].perplexity(names["counts"][250:]) < 100
    assert np.abs(names["factors"].impute(names["holes"]) - names["x"]).max() < 2


@pytest.mark.slow
def test_gaussian_processes_guide():
    *_, names = run_guide("gaussian_processes.md")
    mean = names["mean"]
    for model, near in (("sparse", 0.1), ("robust", 1.0), ("batches", 1.0)):
        assert np.abs(names[model].predict(names["x"][:5]) - mean).max() < near
    assert names["classifier"].predict_proba(names["x"][:5]).shape == (5, 2)


def test_structured_guide(capsys):
    *_, names = run_guide("structured.md")
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "docs" / "structured.md").read_text()
    assert printed and all(f"    {line}" in page for line in printed)
    assert names["posterior"].diagnostics.converged


def test_streams_guide():
    days, batches, plate = run_guide("streams.md")
    sd = np.sqrt(days["monday"].gaussian.variance)
    mean = plate["same"].gaussian.mean
    # Twice the data, and each way has all of them.
    for later, near in ((days["tuesday"], 0.1), (batches["posterior"], 0.01)):
        assert (np.sqrt(later.gaussian.variance) < 0.8 * sd).all()
        assert (np.abs(later.gaussian.mean - mean) < near * sd).all()


def test_long_runs_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, names = run_guide("long_runs.md")
    assert list((tmp_path / "kept").glob("checkpoint-*"))
    assert names["fits"].mean["beta"].shape == (200, 3)
    assert names["fits"].converged.all()
    np.testing.assert_allclose(
        names["over_rows"].gaussian.mean, names["posterior"].gaussian.mean, atol=1e-5
    )
