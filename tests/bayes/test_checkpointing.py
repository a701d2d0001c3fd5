"""Fits that are killed and go on: to the same answer, to the last bit."""

from __future__ import annotations

import multiprocessing
import pkgutil
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ngvi
from ngvi.bayes import checkpointing, fit_in_memory, fit_stream
from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.checkpoints import CheckpointError
from ngvi.mirror import loop

Y = np.random.default_rng(0).poisson(np.exp([0.1, 0.4, 0.9, 1.3, 0.2, 2.0]))
X = np.random.default_rng(1).standard_normal((400, 3))
LABELS = (np.random.default_rng(2).random(400) < 0.5 + 0.3 * np.sign(X[:, 0])) * 1


class Killed(BaseException):
    """As a kill would: no handler of Exceptions sees it."""


def rates(y: Any) -> None:
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    with numpyro.plate("rows", 6):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Poisson(jnp.exp(spread * z)), obs=y)


def logistic(x: Any, y: Any) -> None:
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def in_part(x: Any, y: Any) -> None:
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with numpyro.plate("rows", 400, subsample_size=100):
        x, y = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def assert_same(a: ngvi.Posterior, b: ngvi.Posterior) -> None:
    np.testing.assert_array_equal(a.gaussian.mean, b.gaussian.mean)
    np.testing.assert_array_equal(a.gaussian.variance, b.gaussian.variance)
    for name, column in a.history.items():
        np.testing.assert_array_equal(b.history[name], column, err_msg=name)
    drawn = [p.approximation.draws(16, np.random.default_rng(0)) for p in (a, b)]
    np.testing.assert_array_equal(*drawn)
    unlike = ("seconds_compiling", "seconds_running")
    one, other = vars(a.record.diagnostics), vars(b.record.diagnostics)
    for name in one.keys() - unlike:
        np.testing.assert_equal(other[name], one[name], err_msg=name)


def correlated(b: Any, x: Any, y: Any) -> Any:
    logits = x @ b
    return (y * logits - jnp.logaddexp(0, logits)).sum() - b @ b / 2


def conjugate(y: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    precision = numpyro.sample("precision", dist.Gamma(1.0, 1.0))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean, precision**-0.5), obs=y)


def simulator(z: np.ndarray) -> float:
    return -float(np.sum((z - 1.0) ** 2) + z[0] ** 4) / 2


def banana(z: Any) -> Any:
    return -(z[0] ** 2) / 2 - 2 * (z[1] - z[0] ** 2) ** 2


STEP, TRY, ROUND = (
    f"ngvi.bayes.{name}"
    for name in (
        "fit_in_memory._show",
        "mean_field.MeanField._advance",
        "mixture_fit._run",
    )
)
WIDE = np.random.default_rng(3).standard_normal((60, 20))
FITS: dict[str, tuple[str, int, tuple, dict[str, Any]]] = {
    "full": (STEP, 4, (rates, Y), {"covariance": "full"}),
    "structured": (STEP, 4, (rates, Y), {"covariance": "structured"}),
    "low rank": (
        STEP,
        12,
        (correlated, WIDE, LABELS[:60]),
        {"covariance": "low-rank", "init": np.zeros(20)},
    ),
    "values": (STEP, 2, (simulator,), {"init": np.zeros(2), "gradients": False}),
    "mean field": (TRY, 4, (conjugate, X[:9, 0]), {"family": "mean-field"}),
    "mixture": (ROUND, 3, (banana,), {"family": "mixture", "init": np.zeros(2)}),
}
"""Where they are killed, how often, and their arguments."""


@pytest.mark.parametrize("kind", FITS)
def test_a_killed_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place, often, args, options = FITS[kind]
    whole = ngvi.fit(*args, **options)
    unharmed = pkgutil.resolve_name(place.replace(".MeanField", ":MeanField"))
    calls = [0]

    def killing(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] % often == 0:
            raise Killed
        return unharmed(*args)

    options = {**options, "checkpoint": tmp_path, "every": 1}
    with monkeypatch.context() as patched:
        patched.setattr(place, killing)
        patched.setattr("ngvi.bayes.checkpointing._LARGEST_SHARE", np.inf)
        kills = 0
        while True:
            try:
                resumed = ngvi.fit(*args, **options)
                break
            except Killed:
                kills += 1
    assert kills >= 1
    assert_same(resumed, whole)
    if place == STEP:
        # Nothing is done twice but the step after the last checkpoint.
        assert calls[0] <= whole.diagnostics.iterations + kills
    # What has ended is not fitted again.
    monkeypatch.setattr(place, lambda *args: pytest.fail("a step"))
    assert_same(ngvi.fit(*args, **options), whole)


def test_an_interrupted_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C the fit so far is returned, and kept."""
    whole = ngvi.fit(rates, Y, covariance="full")

    def interrupting(bar: Any, state: loop.State) -> None:
        if int(state.iteration) >= 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(STEP, interrupting)
        partly = ngvi.fit(rates, Y, covariance="full", checkpoint=tmp_path, every=1)
    assert partly.diagnostics.stop_reason == INTERRUPTED
    assert_same(ngvi.fit(rates, Y, covariance="full", checkpoint=tmp_path), whole)


def batches(kill_at: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(4):
        if READ[0] == kill_at:
            raise Killed
        READ[0] += 1
        yield X[100 * i : 100 * (i + 1)], LABELS[100 * i : 100 * (i + 1)]


READ = [0]
"""Batches read so far."""


def test_a_stream_goes_on_from_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ngvi.bayes.checkpointing._LARGEST_SHARE", np.inf)

    def fit(kill_at: int | None = None, **options: Any) -> ngvi.Posterior:
        READ[0] = 0
        stream = ngvi.Stream(lambda: batches(kill_at), prefetch=0)
        return ngvi.fit(logistic, stream, **options)

    whole = fit()
    assert whole.diagnostics.epochs > 3
    for kill_at in (4 * 2 + 2, 2):  # in its third epoch, and in the one after that
        with pytest.raises(Killed):
            fit(kill_at, checkpoint=tmp_path)
    resumed = fit(checkpoint=tmp_path)
    assert READ[0] < 4 * (whole.diagnostics.epochs - 1)
    assert_same(resumed, whole)


def test_rows_in_batches_go_on_from_their_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ngvi.fit(in_part, X, LABELS)
    kept, keep = [0], fit_stream._Watch.keep

    def killing(self: Any, state: loop.State) -> None:
        kept[0] += 1
        if kept[0] in (3, 6):
            raise Killed
        keep(self, state)

    monkeypatch.setattr(fit_stream._Watch, "keep", killing)
    for _ in range(2):
        with pytest.raises(Killed):
            ngvi.fit(in_part, X, LABELS, checkpoint=tmp_path)
    assert_same(ngvi.fit(in_part, X, LABELS, checkpoint=tmp_path), whole)


def test_of_another_fit_is_refused(tmp_path: Path) -> None:
    ngvi.fit(logistic, X, LABELS, checkpoint=tmp_path)
    for text, options in (
        ("another seed", {"seed": 1}),
        ("another covariance", {"covariance": "diagonal"}),
        ("another settings", {"settings": loop.Settings(tolerance=0.1)}),
    ):
        with pytest.raises(CheckpointError, match=text):
            ngvi.fit(logistic, X, LABELS, checkpoint=tmp_path, **options)
    with pytest.raises(CheckpointError, match="another data"):
        ngvi.fit(logistic, X, 1 - LABELS, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="another model, sites, data"):
        ngvi.fit(rates, Y, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="every must be at least 1, not 0"):
        ngvi.fit(rates, Y, checkpoint=tmp_path, every=0)
    with pytest.raises(CheckpointError, match="another covariance"):
        ngvi.fit(logistic, X, LABELS, checkpoint=tmp_path, family="mean-field")


def fit_slowly(folder: Path, cache: Path, answer: Path, begun: Any) -> None:
    """In a process of its own: a fit that keeps every step, and says when it begins."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    def slowly(bar: Any, state: loop.State) -> None:
        begun.set()
        time.sleep(0.1)

    fit_in_memory._show = slowly
    checkpointing._LARGEST_SHARE = np.inf
    fitted = ngvi.fit(rates, Y, checkpoint=folder, every=1)
    np.save(answer, fitted.gaussian.mean)


@pytest.mark.slow
def test_kill_9_at_twenty_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the fit has ended, and again from the start until there were twenty."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    rng, kills, runs = random.Random(0), 0, 0
    # Processes that fork from one with all imported, which has no threads yet.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    whole = np.asarray(ngvi.fit(rates, Y).gaussian.mean)
    while kills < 20:
        folder, answer = tmp_path / f"run{runs}", tmp_path / f"mean{runs}.npy"
        runs += 1
        while not answer.exists():
            begun = processes.Event()
            arguments = folder, tmp_path / "xla", answer, begun
            process = processes.Process(target=fit_slowly, args=arguments)
            process.start()
            assert begun.wait(300)
            if kills < 20:
                time.sleep(rng.uniform(0, 0.6))
                process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            assert process.exitcode in (0, -signal.SIGKILL)
        np.testing.assert_array_equal(np.load(answer), whole)
