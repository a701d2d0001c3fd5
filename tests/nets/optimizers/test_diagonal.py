"""Diagonal preconditioners against their published updates, and against optax'."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.fisher import fisher
from ngvi.nets.optimizers import (
    adahessian,
    diagonal,
    fisher_diagonal,
    gauss_newton_bartlett,
    hutchinson,
    sophia,
    squared_mean_gradient,
)
from ngvi.nets.optimizers.diagonal_estimates import averaged_windows
from tests.nets.optimizers.updates import DIRECTION, GRADIENTS, PARAMS, RNG, updates
from tests.nets.problems import LABELS, X, apply
from tests.nets.problems import PARAMS as NET

QUARTIC = {name: np.exp(leaf) for name, leaf in PARAMS.items()}
TIMES = (1.0, 1.5, 0.5, 2.0)


def quartic(params):
    """Of a diagonal Hessian, which a probe of signs finds exactly: 12 c θ²."""
    return sum((c * params[name] ** 4).sum() for name, c in QUARTIC.items())


def hessian(params):
    return {name: 12 * QUARTIC[name] * leaf**2 for name, leaf in params.items()}


def mean_loss(params, x, y):
    log_probs = jax.nn.log_softmax(apply(params, x))
    return -jnp.take_along_axis(log_probs, y[:, None], 1).mean()


def one_update(optimizer, gradient, **extra):
    optimizer = optax.with_extra_args_support(optimizer)
    return jax.jit(lambda g: optimizer.update(g, optimizer.init(NET), NET, **extra)[0])(
        gradient
    )


def close(found, expected):
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


# -- special cases ---------------------------------------------------------------------


def test_adam_is_a_special_case():
    for weight_decay in (0.0, 0.1):
        found = updates(diagonal(0.1, weight_decay=weight_decay))
        expected = updates(optax.adamw(0.1, weight_decay=weight_decay))
        for name, leaf in found.items():
            np.testing.assert_allclose(leaf, expected[name], rtol=1e-12)


def test_rmsprop_is_a_special_case():
    found = updates(diagonal(0.1, b1=0.0, b2=0.9, eps=0.0, eps_root=1e-8, debias=False))
    expected = updates(optax.rmsprop(0.1, decay=0.9))
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-12)


def test_adam_and_the_empirical_fisher_agree_on_batches_of_one():
    batch = X[0, :1], LABELS[0, :1]
    gradient = jax.jit(jax.grad(mean_loss))(NET, *batch)
    estimate = fisher_diagonal(apply, "categorical", kind="empirical")
    found, adam = (
        one_update(optimizer, gradient, batch=batch)
        for optimizer in (diagonal(0.1, estimate), optax.adam(0.1))
    )
    close(found, adam)


def test_a_natural_gradient_is_a_special_case():
    batch = X[0], LABELS[0]
    gradient = jax.jit(jax.grad(mean_loss))(NET, *batch)
    for kind in ("true", "empirical"):
        optimizer = diagonal(
            0.5,
            fisher_diagonal(apply, "categorical", kind=kind),
            power=1.0,
            eps=1e-2,
        )
        found = one_update(optimizer, gradient, batch=batch)
        curvature = fisher(apply, NET, batch, likelihood="categorical", kind=kind)
        flat, unravel = jax.flatten_util.ravel_pytree(gradient)
        # Of both the diagonal is in the parameters' own order.
        entries = curvature.layout.to_flat(jnp.diag(curvature.matrix.dense()))
        close(found, unravel(-0.5 * flat / (entries + 1e-2)))


# -- published updates -----------------------------------------------------------------


def with_loss(optimizer):
    """The updates of every step, each at other parameters."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *GRADIENTS)
    places = jax.tree.map(lambda leaf: jnp.stack([leaf * t for t in TIMES]), PARAMS)

    def step(state, gradient_and_place):
        gradient, place = gradient_and_place
        update, state = optimizer.update(gradient, state, place, obj_fn=quartic)
        return state, update

    scan = jax.jit(lambda s, xs: jax.lax.scan(step, s, xs)[1])
    return scan(optimizer.init(PARAMS), (stacked, places))


@pytest.mark.parametrize("every", [1, 2])
def test_adahessian(every):
    b1, b2, eps, k = 0.8, 0.9, 1e-3, 0.7
    found = with_loss(adahessian(0.1, b1, b2, eps, hessian_power=k, every=every))["w"]
    m = v = 0
    for t, gradient in enumerate(GRADIENTS):
        m = b1 * m + (1 - b1) * gradient["w"]
        if t % every == 0:
            v = b2 * v + (1 - b2) * hessian(PARAMS)["w"] ** 2 * TIMES[t] ** 4
        bars = m / (1 - b1 ** (t + 1)), v / (1 - b2 ** (t // every + 1))
        expected = -0.1 * bars[0] / (np.sqrt(bars[1]) ** k + eps)
        np.testing.assert_allclose(found[t], expected, rtol=1e-12)


def test_sophia():
    b1, b2, gamma, clip, every, decay = 0.8, 0.9, 0.5, 0.7, 2, 0.3
    optimizer = sophia(
        0.1, None, b1, b2, gamma=gamma, clip=clip, every=every, weight_decay=decay
    )
    found = with_loss(optimizer)["w"]
    m = h = 0
    clipped = []
    for t, gradient in enumerate(GRADIENTS):
        m = b1 * m + (1 - b1) * gradient["w"]
        if t % every == 0:
            h = b2 * h + (1 - b2) * hessian(PARAMS)["w"] * TIMES[t] ** 2
        newton = m / np.maximum(gamma * h, 1e-12)
        clipped.append(np.abs(newton) > clip)
        expected = np.clip(newton, -clip, clip) + decay * TIMES[t] * PARAMS["w"]
        np.testing.assert_allclose(found[t], -0.1 * expected, rtol=1e-12)
    assert 0.1 < np.mean(clipped) < 0.9


def test_negative_curvature_is_stepped_along_by_signs():
    def loss(w):
        return -(w**2).sum()

    params = jnp.asarray([1.0, -2.0])
    optimizer = sophia(DIRECTION, every=1)
    gradient = jax.grad(loss)(params)
    found, _ = optimizer.update(gradient, optimizer.init(params), params, obj_fn=loss)
    np.testing.assert_array_equal(found, [-1.0, 1.0])


def test_single_precision():
    single = jax.tree.map(np.float32, GRADIENTS)
    for optimizer in (diagonal(0.1), diagonal(0.1, b1=0.0, power=1.0)):
        found = updates(optimizer, single, single[0])["w"]
        assert found.dtype == jnp.float32
        expected = updates(optimizer)["w"]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * scale)


# -- estimates -------------------------------------------------------------------------


def estimated(estimate, times=1, **extra):
    """The estimates of some calls, one after the other."""
    gradient = jax.tree.map(jnp.ones_like, NET)

    def once(state, _):
        found, state = estimate.update(gradient, state, NET, **extra)
        return state, found

    return jax.jit(lambda s: jax.lax.scan(once, s, None, times)[1])(estimate.init(NET))


def test_hutchinson_on_average():
    batch = X[0], LABELS[0]
    flat, unravel = jax.flatten_util.ravel_pytree(NET)
    full = jax.hessian(lambda v: mean_loss(unravel(v), *batch))(flat)
    draws = estimated(hutchinson(2), 300, obj_fn=lambda w: mean_loss(w, *batch))
    draws = np.concatenate(
        [leaf.reshape(300, -1) for leaf in jax.tree.leaves(draws)], axis=1
    )
    # The variance of z ∘ H z is Σ H_ij² over j ≠ i; all 18 within four errors.
    variance = ((full - np.diag(np.diag(full))) ** 2).sum(1)
    errors = np.sqrt(variance / 600)
    assert (np.abs(draws.mean(0) - np.diag(full)) < 4 * errors).all()


def test_gauss_newton_bartlett_on_average():
    batch = X[0], LABELS[0]
    draws = estimated(gauss_newton_bartlett(apply, "categorical"), 400, batch=batch)
    exact = estimated(fisher_diagonal(apply, "categorical"), batch=batch)
    for found, right in zip(*map(jax.tree.leaves, (draws, exact)), strict=True):
        errors = found.std(0) / np.sqrt(len(found))
        assert (np.abs(found.mean(0) - right[0]) < 4 * errors).all()


def test_windows_are_averaged():
    estimate = averaged_windows(squared_mean_gradient())
    g = jnp.asarray(RNG.normal(size=(3, 2, 4, 5)))
    found, _ = estimate.update({"k": g, "w": g[0, 0]}, estimate.init(g))
    expected = np.broadcast_to((g**2).mean((0, 1)), g.shape)
    np.testing.assert_allclose(found["k"], expected, rtol=1e-12)
    np.testing.assert_allclose(found["w"], g[0, 0] ** 2, rtol=1e-12)


def test_estimates_serve_other_optimisers():
    optimizer = optax.contrib.sophia(0.1, hessian_diagonal_fn=hutchinson())
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(GRADIENTS[0], state, PARAMS, obj_fn=quartic)
    nu = optax.tree.get(state, "nu")
    np.testing.assert_allclose(nu["w"], 0.01 * hessian(PARAMS)["w"], rtol=1e-12)


def test_what_is_missing_is_named():
    optimizer = adahessian(0.1)
    with pytest.raises(ValueError, match=r"needs the parameters and obj_fn"):
        optimizer.update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        hutchinson(0)
    with pytest.raises(ValueError, match="clip must be at least 0, got -1"):
        sophia(0.1, clip=-1)
