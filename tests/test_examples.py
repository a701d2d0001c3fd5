"""The examples run, and what they set out to show is so."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_draws_what_it_says(path: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    command = [sys.executable, str(path)]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) > 3
    drawn = re.findall(r"^(out/\w+\.png)", ran.stdout, re.MULTILINE)
    assert sorted(tmp_path.glob("out/*")) == [tmp_path / name for name in drawn]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in drawn)


def test_fisher_or_hessian() -> None:
    example = load("fisher_or_hessian")
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0))[:, :10]
    zero = {"w": np.zeros(10), "b": np.zeros(())}
    newton, scoring = (
        example.descend(example.regression, zero, (x, y), kind)
        for kind in example.NAMES
    )
    shared = min(len(newton[0]), len(scoring[0]))
    assert shared >= 9
    np.testing.assert_allclose(newton[0][:shared], scoring[0][:shared], rtol=1e-12)
    assert newton[2] == scoring[2] == "minimum"

    start = example.random_network(0, 10)
    newton = example.descend(example.network, start, (x, y), "hessian")
    scoring = example.descend(example.network, start, (x, y), "true")
    assert newton[2] in ("saddle", "uphill step")
    assert scoring[0][-1] < newton[0][-1] / 3


def test_three_fishers(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("three_fishers")
    monkeypatch.setattr(example, "LINE_STEPS", 15)
    x, y = load_diabetes(return_X_y=True)
    mass = x[:, 2] / x[:, 2].std()
    best = np.polyfit(mass, y, 1)[::-1]
    sd = float((y - best[0] - best[1] * mass).std())
    for assumed in (sd / 10, sd):
        path = example.fit_line((0.0, -40.0), (mass, y), "true", assumed)
        np.testing.assert_allclose(path[1], best, rtol=1e-9)
    off = {
        factor: np.linalg.norm(
            example.fit_line((0.0, -40.0), (mass, y), "empirical", factor * sd) - best,
            axis=1,
        )
        for factor in (0.1, 1.0, 2.0)
    }
    assert off[1.0][-1] < 0.02 * off[1.0][0]
    assert off[0.1][-1] > 0.95 * off[0.1][0]
    assert off[2.0][-1] > 0.1 * off[2.0][0]


def test_parameterization(capsys: pytest.CaptureFixture) -> None:
    example = load("parameterization")
    example.two_pairs()
    numbers = re.findall(r"0\.\d{5}", capsys.readouterr().out)
    assert numbers == ["0.50000"] * 2 + ["0.00005"] * 2
    mass = load_diabetes(return_X_y=True, scaled=False)[0][:, 2]
    curve = example.flow(mass, np.linspace(0, 12, 2000))
    np.testing.assert_allclose(curve[-1], [mass.mean(), mass.std()], rtol=1e-4)
    for name, way in example.WAYS.items():
        natural = example.path(name, mass, 0.01, 500, True)
        assert example.distance_to(curve, natural) < 0.02
        plain = example.path(name, mass, way.length, way.steps, False)
        assert example.distance_to(curve, plain) > 3
        np.testing.assert_allclose(plain[-1], curve[-1], rtol=1e-2)


def test_kfac_blocks() -> None:
    example = load("kfac_blocks")
    x, _ = load_digits(return_X_y=True)
    curvatures = example.structures(example.random_network(), x[:, ::4] / 8 - 1)
    matrices = {name: np.asarray(f.dense()) for name, f in curvatures.items()}
    exact, near, kfac = (
        example.layers(matrices[name])
        for name in ("dense", "kronecker-eigen", "kronecker")
    )
    for a, b, c in zip(exact, near, kfac, strict=True):
        np.testing.assert_allclose(np.trace(b), np.trace(a), rtol=1e-10)
        assert np.linalg.norm(b - a) < np.linalg.norm(c - a) < np.linalg.norm(a)


def test_natural_gradient() -> None:
    example = load("natural_gradient")
    x, y = load_digits(return_X_y=True)
    data = jnp.asarray(x / 8 - 1, jnp.float32), jnp.asarray(y)
    zero = jnp.zeros_like(example.START)
    plain = example.partial(example.plain, size=1.0, momentum=0.0)
    reached = example.run(plain, (example.START, zero), data, 100)[-1, 1]
    for structure in ("kronecker", "matrix-free"):
        step = example.partial(example.natural, structure=structure)
        start = example.START, zero, jnp.float32(0.1)
        assert example.run(step, start, data, 11)[-1, 1] < reached / 3


def test_fisher_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    example = load("fisher_costs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(example, "WIDTHS", (4,))
    monkeypatch.setattr(example, "STYLES", {"dense": "C3-", "diagonal": "C7-"})
    example.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    assert [row[0] for row in rows] == ["dense", "diagonal"]
    assert [float(row[4]) for row in rows] == pytest.approx([0.384, 0.001], abs=1e-3)


def test_pruning() -> None:
    example = load("pruning")
    x, y = load_digits(return_X_y=True)
    x = jnp.asarray(x / 8 - 1, jnp.float32)
    posterior = example.train(x[:900], y[:900], epochs=15)
    losses = {
        order: example.scores(example.without(posterior, 0.5, order), x[900:], y[900:])[
            1
        ]
        for order in example.STYLES
    }
    whole = example.scores(example.prune(posterior, 0.0), x[900:], y[900:])[1]
    assert losses["by signal to noise"] < 1.2 * whole < losses["at random"]


@pytest.mark.slow
def test_continual_learning() -> None:
    example = load("continual_learning")
    learn, test = (part[:2] for part in example.split_digits())
    kept = example.accuracies(example.bayesian(learn, 40), test)
    lost = example.accuracies(example.going_on(learn, 40), test)
    assert np.isnan(kept[0, 1]) and kept[1].min() > 0.95
    assert lost[1, 1] > 0.95 and lost[1, 0] < 0.8


def test_active_learning() -> None:
    example = load("active_learning")
    # Of draws that agree on a coin, and draws that are sure of different sides.
    draws = jnp.array([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])
    two = np.log(2)
    found = [example.interest(way, draws, None) for way in ("BALD", "entropy")]
    np.testing.assert_allclose(found, [[0.0, two], [two, two]], atol=1e-7)


def test_transformer_averaging() -> None:
    example = load("transformer_averaging")
    numbers, letters = example.text()
    x, y = example.windows(numbers[:100])
    np.testing.assert_array_equal(x.reshape(-1)[1:], y.reshape(-1)[:-1])
    params = example.start(example.jax.random.key(0), letters)
    # What is said at a place does not depend on letters after it.
    other = x.copy()
    other[:, 10:] = 0
    found, changed = (np.asarray(example.apply(params, each)) for each in (x, other))
    np.testing.assert_allclose(found[:, :10], changed[:, :10], atol=1e-6)
    assert np.abs(found[:, 11:] - changed[:, 11:]).max() > 0.1


@pytest.mark.slow
def test_updating_day_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("updating_day_by_day")
    monkeypatch.setattr(example, "DAYS", 30)
    off = {
        forgetting: np.abs(example.follow(forgetting)[-1, 0] - example.drift(29))
        for forgetting in (0.0, 0.2)
    }
    assert off[0.2] < 0.4 < 0.8 < off[0.0]


def test_small_tables() -> None:
    example = load("small_tables")
    model, learn, test = example.tables()["tumours, logistic regression"]
    params = model.init(example.jax.random.key(0))
    found, path = example.natural(model, params, learn)
    assert path[8] < path[-1] + 1e-6 < path[2]
    gradient = example.jax.grad(example.objective, 1)(model, found, learn)
    assert example.optax.tree.norm(gradient) < 1e-6
    assert example.accuracy(model, found, test) > 0.94


def test_letters_by_soap() -> None:
    example = load("letters_by_soap")
    numbers, letters = example.text()
    x = jnp.asarray(numbers[: 4 * example.CONTEXT]).reshape(4, -1)
    params = example.random_transformer(example.jax.random.key(0), len(letters))
    params["say"] = example.jax.random.normal(
        example.jax.random.key(1), params["say"].shape
    )
    # What is said at a place does not depend on letters after it.
    other = x.at[:, 10:].set(0)
    found, changed = (
        np.asarray(example.transformer(params, each)) for each in (x, other)
    )
    np.testing.assert_allclose(found[:, :10], changed[:, :10], atol=1e-6)
    assert np.abs(found[:, 11:] - changed[:, 11:]).max() > 0.1


@pytest.mark.slow
def test_digits_vae() -> None:
    example = load("digits_vae")
    x = jnp.asarray(load_digits(return_X_y=True)[0] / 16)
    keys = example.jax.random.split(example.jax.random.key(0))
    params = {
        "encoder": example.ENCODER.init(keys[0]),
        "decoder": example.DECODER.init(keys[1]),
    }
    losses = [
        run(params, x, size, 10)[1][-30:].mean()
        for run, size in ((example.natural, 1e-3), (example.adam, 0.01))
    ]
    assert losses[0] < losses[1] - 0.5


@pytest.mark.slow
def test_ring_gan() -> None:
    example = load("ring_gan")
    shares = {}
    for name, size in (("natural", 1e-4), ("Adam", 1e-3)):
        shots = example.play(name, size, example.jax.random.key(1))
        last = example.jax.tree.map(lambda leaf: leaf[-1], shots)
        _, shares[name], _ = example.described(last)
    assert shares["Adam"] < 0.5 < 0.7 < shares["natural"]


def test_invariance(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("invariance")
    steps = {"natural gradient": 60, "gradient descent": 500, "Adam": 100}
    monkeypatch.setattr(example, "STEPS", steps)
    at = np.random.default_rng(1).uniform(-2, 2, (50, 2))
    apart, losses = {}, {}
    for name in steps:
        plain, other, losses[name] = example.both(name, at)
        apart[name] = np.abs(plain - other).max()
    assert apart["natural gradient"] < 1e-5
    assert min(apart["gradient descent"], apart["Adam"]) > 0.05
    assert losses["natural gradient"].max() < 0.15


@pytest.mark.slow
def test_deep_autoencoder(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("deep_autoencoder")
    monkeypatch.setattr(example, "RATES", (5e-3,))
    x = jnp.asarray(load_digits().data[:600] / 16, jnp.float32)
    params = example.NET.init(example.jax.random.key(0), jnp.float32)
    curved, _ = example.by_kfac(params, x, 15)
    plain, _ = example.by_adam(params, x, 60)[5e-3]
    assert curved[-1, 1] < plain[-1, 1] < plain[0, 1] - 15
