"""The logistic and softmax functions' kin against many digits, ends and neighbours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jaxtyping import Array

from ngvi.families import LogSeries
from ngvi.families.special import logistic, softmax
from tests.programs import compiled

SLOPE = {"float32": 2e-6, "float64": 1e-14}
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits up to 80, and others from 1e-5 to 100 away."""
    rng = np.random.default_rng(0)
    x = np.r_[rng.uniform(-30, 30, 60), rng.uniform(-80, 80, 30)]
    away = rng.normal(size=60) * 10 ** rng.uniform(-5, 1, 60)
    y = np.r_[x[:60] + away, rng.uniform(-80, 80, 30)]
    return x.astype(dtype), y.astype(dtype)


def exact(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    def row(x: Any, y: Any) -> dict[str, Any]:
        def softplus(v: Any) -> Any:
            return mp.log1p(mp.exp(v))

        p, q = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(-y))
        kl = softplus(y) - softplus(x) - p * (y - x)
        change = softplus(-x) - softplus(-y)
        mean = mp.exp(x) / softplus(x)
        return {
            "softplus": softplus(x),
            "entropy": softplus(x) - p * x,
            "kl": kl,
            "kl, slope in x": (x - y) * p * (1 - p),
            "kl, slope in y": q - p,
            "stopped": (1 + mp.exp(x)) * kl,
            "stopped, slope in x": -mp.exp(x) * change,
            "stopped, slope in y": (mp.exp(y) - mp.exp(x)) / (1 + mp.exp(y)),
            "change": softplus(y) - softplus(x),
            "log series": mp.log(softplus(y) / softplus(x)) - change * mean,
        }

    with mp.workdps(100):
        values = zip(x.tolist(), y.tolist(), strict=True)
        rows = [row(mp.mpf(a), mp.mpf(b)) for a, b in values]
        return {name: np.array([float(r[name]) for r in rows]) for name in rows[0]}


@compiled
def found(x: Array, y: Array) -> dict[str, Array]:
    def slopes(function: Any) -> Any:
        return jax.grad(lambda x, y: function(x, y).sum(), (0, 1))(x, y)

    kl, stopped = logistic.logistic_kl, logistic.stopped_logistic_kl
    return {
        "softplus": logistic.softplus(x),
        "entropy": logistic.binary_entropy(x),
        "kl": kl(x, y),
        "kl, slope in x": slopes(kl)[0],
        "kl, slope in y": slopes(kl)[1],
        "stopped": stopped(x, y),
        "stopped, slope in x": slopes(stopped)[0],
        "stopped, slope in y": slopes(stopped)[1],
        "change": logistic.softplus_change(x, y),
        "log series": LogSeries(x).kl(LogSeries(y)),
    }


@dtypes
def test_of_one_logit(dtype: str) -> None:
    x, y = pairs(dtype)
    values = found(x, y)
    for name, expected in exact(x, y).items():
        assert values[name].dtype == dtype
        seen = np.abs(expected) > 1e-36
        np.testing.assert_allclose(
            values[name][seen], expected[seen], rtol=SLOPE[dtype], err_msg=name
        )


def classes(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    spread = 10 ** rng.uniform(-1, 1.5, (60, 1))
    first = rng.normal(size=(60, 4)) * spread
    near = first + rng.normal(size=(60, 4)) * 10 ** rng.uniform(-3, 0, (60, 1))
    far = rng.normal(size=(60, 4)) * spread
    second = np.where(rng.random((60, 1)) < 0.6, near, far)
    first[:12], second[:12] = rng.choice([-80, 0, 80.0], (2, 12, 4))
    return first.astype(dtype), np.clip(second, -80, 80).astype(dtype)


@dtypes
def test_of_classes(dtype: str) -> None:
    first, second = classes(dtype)

    def probabilities(logits: np.ndarray) -> list[Any]:
        weights = [mp.exp(v) for v in logits.tolist()]
        return [w / sum(weights) for w in weights]

    with mp.workdps(100):
        p, q = ([probabilities(row) for row in side] for side in (first, second))
        expected = {
            "entropy": [-sum(a * mp.log(a) for a in row) for row in p],
            "kl": [
                sum(a * mp.log(a / b) for a, b in zip(*rows, strict=True))
                for rows in zip(p, q, strict=True)
            ],
            "log p": [[mp.log(a) for a in row] for row in p],
        }
    functions = compiled(
        lambda x, y: {
            "entropy": softmax.softmax_entropy(x),
            "kl": softmax.softmax_kl(x, y),
            "log p": softmax.log_softmax(x),
        }
    )
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    for name, value in functions(first, second).items():
        assert value.dtype == dtype
        exactly = np.array(expected[name], float)
        np.testing.assert_allclose(
            value, exactly, rtol=tolerance, atol=1e-36, err_msg=name
        )


def test_slopes_of_classes() -> None:
    first, second = classes("float64")
    p, q = jax.nn.softmax(first), jax.nn.softmax(second)

    def plain(x: Array, y: Array) -> Array:
        gap = jax.nn.log_softmax(x) - jax.nn.log_softmax(y)
        return (jax.nn.softmax(x) * gap).sum()

    expected = compiled(jax.grad(plain, (0, 1)))(first, second)
    slopes = jax.grad(lambda x, y: softmax.softmax_kl(x, y).sum(), (0, 1))
    np.testing.assert_allclose(compiled(slopes)(first, second), expected, atol=1e-12)
    entropy = jax.grad(lambda x: softmax.softmax_entropy(x).sum())
    log_p = jax.nn.log_softmax(first)
    change = -p * (log_p - (p * log_p).sum(-1, keepdims=True))
    np.testing.assert_allclose(compiled(entropy)(first), change, atol=1e-13)
    moved = jax.jacfwd(lambda x: softmax.softmax(x))
    matrices = compiled(jax.vmap(moved))(second)
    covariance = q[:, :, None] * (jnp.eye(4) - q[:, None, :])
    np.testing.assert_allclose(matrices, covariance, atol=1e-14)
