"""The one update: it is `ngvi.mirror`'s, and where the posterior is known finds it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.fisher.kinds import TrueFisher
from ngvi.fisher.structures.exact import DiagonalStructure
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror import mirror_step
from ngvi.nets import (
    Algorithm,
    GammaPrior,
    ObservationNoise,
    Rule,
    blocks,
    full,
    ivon,
    last_layer,
    noisy_adam,
    noisy_ekfac,
    noisy_kfac,
    slang,
    vadam,
    vogn,
)
from ngvi.nets.measures import FromFisher
from tests.nets import linear, problems
from tests.nets.problems import close
from tests.programs import compiled


@pytest.mark.parametrize("row", [full, vogn])
def test_it_is_the_mirror_step(row: Any) -> None:
    # Of ℓ = N ℓ̄ + ½ δ ‖w‖², at α = ρ, without momentum.
    rho, delta, n = 0.2, 1.5, problems.DATA_SIZE
    kind = {"kind": "empirical"} if row is full else {}
    algorithm = row(
        problems.apply,
        "categorical",
        n,
        learning_rate=rho,
        momentum=0.0,
        precision_rate=rho,
        prior_precision=delta,
        samples=2,
        **kind,
    )
    q = None
    for _, before, state, batch, key in problems.training(algorithm):
        q = Gaussian(before.mean, before.precision) if q is None else q
        eps, _ = problems.normals(key, 2)
        each = [
            problems.gradients(w, *batch) for w in q.mean + q.precision.unwhiten(eps)
        ]
        if row is full:
            assert isinstance(q.precision, Dense)
            squares = np.mean([g.T @ g / len(g) for g in each], 0)
            h = n * squares + delta * np.eye(problems.DIM)
            h_m = h @ q.mean
        else:
            assert isinstance(q.precision, Diagonal)
            h = n * np.mean([(g**2).mean(0) for g in each], 0) + delta
            h_m = h * q.mean
        g = n * np.mean(each, (0, 1)) + delta * np.asarray(q.mean)
        q = mirror_step(q, (jnp.asarray(g - h_m), jnp.asarray(h / 2)), rho)
        close(state.mean, q.mean)
        close(state.precision.dense(), q.precision.dense())


SETTINGS = {
    "learning_rate": 0.4,
    "precision_rate": 0.3,
    "momentum": 0.5,
    "prior_precision": linear.DELTA,
    "samples": 2,
    # ĝ is linear in w: the mean over a pair of draws is that at m, exactly.
    "antithetic": True,
}
EXACT = {
    "full": (full, {}),
    "blocks": (blocks, {}),
    "kfac": (noisy_kfac, {"kind": "true", "refresh": 3}),
    "ekfac": (noisy_ekfac, {"kind": "true", "refresh": 3}),
    "slang": (slang, {"kind": "true", "rank": linear.DIM}),
    # Its only layer is the last.
    "last_layer": (last_layer, {}),
}


@pytest.mark.parametrize("name", list(EXACT))
def test_full_precisions_are_exact_on_linear_models(name: str) -> None:
    # Tempered, too; and the damping does not leak into the posterior.
    row, more = EXACT[name]
    kappa = 0.6
    algorithm = row(
        linear.apply,
        linear.LIKELIHOOD,
        linear.DATA_SIZE,
        kl_weight=kappa,
        damping=0.3,
        **SETTINGS,
        **more,
    )
    state = linear.converged(algorithm, 150)
    mean, s = linear.exact(kl_weight=kappa)
    close(state.mean, mean, 1e-8)
    close(state.precision.inverse_dense(), np.linalg.inv(s), 1e-8)


def test_factored_damping_overstates_the_precision() -> None:
    # The published form of noisy K-FAC; the mean is right all the same.
    algorithm = noisy_kfac(
        linear.apply,
        linear.LIKELIHOOD,
        linear.DATA_SIZE,
        kind="true",
        factored=True,
        damping=0.3,
        **SETTINGS,
    )
    state = linear.converged(algorithm, 150)
    mean, s = linear.exact()
    close(state.mean, mean, 1e-8)
    more = np.linalg.eigvalsh(np.asarray(state.precision.dense()) - s)
    assert more.min() > 0.1


def test_the_best_diagonal_precision_is_the_diagonal_of_the_precision() -> None:
    kappa, measure = 0.6, FromFisher(TrueFisher(), DiagonalStructure())
    settings = {k: v for k, v in SETTINGS.items() if k != "prior_precision"}
    rule = Rule(measure, damping=0.3, **settings)
    algorithm = Algorithm(
        linear.apply,
        linear.LIKELIHOOD,
        linear.DATA_SIZE,
        rule,
        prior_precision=linear.DELTA,
        kl_weight=kappa,
    )
    state = linear.converged(algorithm, 600)
    mean, s = linear.exact(kl_weight=kappa)
    close(state.mean, mean, 1e-8)
    close(state.precision.diagonal(), np.diag(s), 1e-8)


@pytest.mark.parametrize(
    ("row", "learning_rate"), [(vogn, 0.2), (noisy_adam, 0.02), (vadam, 0.02)]
)
def test_diagonal_methods_find_the_exact_mean(row: Any, learning_rate: float) -> None:
    # Their squared gradients are no Hessian, so their precisions are their own.
    settings = SETTINGS | {"learning_rate": learning_rate, "damping": 0.1}
    algorithm = row(linear.apply, linear.LIKELIHOOD, linear.DATA_SIZE, **settings)
    close(linear.converged(algorithm, 4000).mean, linear.exact()[0], 1e-6)


def test_ivon_finds_the_best_diagonal_on_average() -> None:
    rate, pairs = 0.01, 32
    settings = SETTINGS | {"precision_rate": rate, "samples": 2 * pairs}
    algorithm = ivon(
        linear.apply, linear.LIKELIHOOD, linear.DATA_SIZE, **settings | {"damping": 0.3}
    )
    state = linear.converged(algorithm, 1000)
    mean, s = linear.exact()
    close(state.mean, mean, 1e-8)
    # ĥ_j of a pair is Σ_k H_jk ε_j ε_k √(S_j / S_k), averaged over pairs and steps.
    diagonal = np.diag(s)
    h = s - linear.DELTA * np.eye(linear.DIM)
    variance = (h**2 * diagonal[:, None] / diagonal).sum(1) + np.diag(h) ** 2
    error = np.sqrt(variance / pairs * rate / (2 - rate))
    assert (np.abs(state.precision.diagonal() - diagonal) < 4.5 * error).all()


def test_twice_the_data_are_half_the_weight_of_the_prior() -> None:
    x, y = problems.X[0], problems.LABELS[0]
    means = []
    for times, kappa in ((1, 0.3), (2, 0.6)):
        algorithm = vogn(problems.apply, "categorical", times * len(x), kl_weight=kappa)
        batch = jnp.tile(x, (times, 1)), jnp.tile(y, times)
        state = problems.begun(algorithm, problems.PARAMS, batch)
        step = compiled(algorithm.step)
        for i in range(3):
            state, _ = step(state, batch, jax.random.key(i))
        means.append([state.mean, state.precision.inverse_diagonal()])
    close(*means)


def test_a_prior_that_is_learned_is_at_its_fixed_point() -> None:
    prior = GammaPrior(2.0, 0.7)
    algorithm = full(
        linear.apply,
        linear.LIKELIHOOD,
        linear.DATA_SIZE,
        hyperprior=prior,
        **SETTINGS,
    )
    state = linear.converged(algorithm, 200)
    (delta,) = state.prior.precisions
    mean, s = linear.exact(delta=float(delta))
    close(state.mean, mean, 1e-8)
    squares = (mean**2).sum() + np.trace(np.linalg.inv(s))
    expected = (prior.concentration + linear.DIM / 2) / (prior.rate + squares / 2)
    np.testing.assert_allclose(delta, expected, rtol=1e-8)


def test_a_prior_that_is_learned_leaves_ivon_positive() -> None:
    # δ falls far, beside an s that may be negative.
    algorithm = ivon(
        problems.apply,
        "categorical",
        problems.DATA_SIZE,
        hyperprior=GammaPrior(),
        prior_precision=100.0,
        precision_rate=0.5,
        initial_curvature=0.01,
    )
    for _, _, state, _, _ in problems.training(algorithm):
        assert (np.asarray(state.precision.diagonal()) > 0).all()
        assert max(state.prior.precisions) < 10


def test_noise_that_is_learned_is_that_of_coordinate_ascent() -> None:
    # q(γ) ∝ Gamma(a₀ + n/2, b₀ + ½ E ‖y − f‖²) and q(w) at E γ, in turns.
    a, b, n = 3.0, 2.0, linear.DATA_SIZE
    gram = linear.WITH_ONE.T @ linear.WITH_ONE
    shape, rate = a + n / 2, b
    for _ in range(100):
        mean, s = linear.exact(shape / rate)
        left = np.asarray(linear.Y)[:, 0] - linear.WITH_ONE @ mean
        spread = gram @ np.linalg.inv(s)
        rate = b + (left @ left + np.trace(spread)) / 2

    draws, step = 100, 0.02
    algorithm = full(
        linear.apply,
        ObservationNoise.begin(a, b),
        n,
        noise_rate=step,
        **SETTINGS | {"samples": draws},
    )
    state = linear.converged(algorithm, 600)
    q = state.noise.q
    np.testing.assert_allclose(q.concentration, shape, rtol=1e-5)
    # The spread of a pair's ½ ‖X A ε‖², averaged over pairs and steps.
    of_pair = np.trace(spread @ spread) / 2
    error = np.sqrt(of_pair / (draws / 2) * step / (2 - step)) / rate
    assert error < 0.01
    np.testing.assert_allclose(q.rate, rate, rtol=4.5 * error)
    close(state.mean, mean, 9 * error)
    close(state.precision.dense(), s, 9 * error)
    np.testing.assert_allclose(state.likelihood.scale, q.mean**-0.5)


def test_single_precision_stays_where_double_is_enabled() -> None:
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), problems.PARAMS)
    batch = problems.X[0].astype(jnp.float32), problems.NUMBERS[0].astype(jnp.float32)
    algorithm = noisy_kfac(
        problems.apply,
        ObservationNoise.begin(),
        problems.DATA_SIZE,
        learning_rate=lambda steps: jnp.asarray(0.1) / (1 + steps),
        damping=0.1,
        prior_precision=jax.tree.map(jnp.ones_like, problems.PARAMS),
        hyperprior=GammaPrior(1.0, 1.0),
    )
    before = jax.eval_shape(algorithm.init, narrow, batch)
    after = jax.eval_shape(algorithm.step, before, batch, jax.random.key(0))[0]
    assert before.mean.dtype == jnp.float32
    old, new = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
        for state in (before, after)
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, old, new))


def test_a_step_is_no_longer_than_is_trusted() -> None:
    settings = {"learning_rate": 0.5, "precision_rate": 0.3, "prior_precision": 2.0}
    free, held = (
        full(problems.apply, "categorical", problems.DATA_SIZE, trust=trust, **settings)
        for trust in (None, 0.02)
    )
    batch, key = (problems.X[0], problems.LABELS[0]), jax.random.key(0)
    start = problems.begun(free, problems.PARAMS, batch)
    states = [compiled(each.step)(start, batch, key)[0] for each in (free, held)]
    whole, shift = (np.asarray(state.mean - start.mean) for state in states)
    s = np.asarray(states[0].precision.dense())
    length = np.sqrt(whole @ s @ whole / problems.DIM)
    assert length > 0.1
    close(shift, whole * 0.02 / length)


def test_a_precision_that_is_kept() -> None:
    # A rate of 0, corrected or not: S is what it was at the start.
    algorithm = vogn(
        problems.apply,
        "categorical",
        problems.DATA_SIZE,
        precision_rate=0.0,
        corrected=True,
    )
    for _, before, state, _, _ in problems.training(algorithm):
        close(state.precision.diagonal(), before.precision.diagonal())
        assert np.isfinite(state.mean).all()


def test_the_loss_is_that_at_the_draws() -> None:
    algorithm = noisy_adam(problems.apply, "categorical", problems.DATA_SIZE, samples=2)
    batch, key = (problems.X[0], problems.LABELS[0]), jax.random.key(5)
    state = problems.begun(algorithm, problems.PARAMS, batch)
    _, info = compiled(algorithm.step)(state, batch, key)
    eps, _ = problems.normals(key, 2)
    losses = problems.of_examples(problems.loss)
    draws = problems.START + eps / np.sqrt(problems.DATA_SIZE + 1)
    expected = np.mean([losses(w, *batch) for w in draws])
    np.testing.assert_allclose(info.loss, expected, rtol=1e-12)


def test_kept_draws_change_signs_layer_by_layer() -> None:
    # Nothing moves, so that the loss tells at which weights it was.
    still = {"learning_rate": 0.0, "precision_rate": 0.0, "fresh_every": 4}
    algorithm = noisy_adam(problems.apply, "categorical", problems.DATA_SIZE, **still)
    batch = problems.X[0], problems.LABELS[0]
    state = problems.begun(algorithm, problems.PARAMS, batch)
    losses, keys = (
        problems.of_examples(problems.loss),
        jax.random.split(jax.random.key(5), 5),
    )
    uses = [(0, 1, 1), (0, -1, -1), (0, 1, -1), (0, -1, 1), (4, 1, 1)]
    for key, (drawn, *signs) in zip(keys, uses, strict=True):
        state, info = compiled(algorithm.step)(state, batch, key)
        eps, _ = problems.normals(keys[drawn], 1)
        away = np.repeat(signs, problems.SIZES) * eps[0]
        w = problems.START + away / np.sqrt(problems.DATA_SIZE + 1)
        np.testing.assert_allclose(info.loss, losses(w, *batch).mean(), rtol=1e-12)


def test_signs_of_correlated_layers_change_together() -> None:
    batch = problems.X[0], problems.LABELS[0]
    for uses, message in ((2, ""), (4, "fresh_every=4 gives .* layers are correlated")):
        for row in (full, slang):
            algorithm = row(problems.apply, "categorical", 40, fresh_every=uses)
            with pytest.raises(ValueError, match=message) if message else nullcontext():
                algorithm.init(problems.PARAMS, batch)
