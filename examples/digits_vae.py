"""A variational autoencoder for digits, each half in the metric of what it says.

The encoder says q(z | x) = N(m, diag σ²), the decoder p(x | z), independent Bernoulli
pixels. Each is a model with a likelihood, so each has a Fisher matrix: that of the
encoder measures by how much q(z | x) changes, with diag(1/σ², 2) in its outputs m and
log σ, and that of the decoder by how much p(x | z) does. A natural step divides the
gradient of the negative evidence lower bound by both, K-FAC in either half:

    −ELBO = E_q[−log p(x | z)] + KL(q(z | x) ‖ N(0, I)),    z = m + σ ε

Where an encoder is sure (σ small) its mean moves little, and its spread on a scale of
its own; Adam knows neither. The steps end in a ball of both divergences and have
momentum. The radius of the ball is the best of three, as Adam's learning rate is.

Source: Kingma and Welling (2014), Auto-encoding variational Bayes; Khan and Lin (2017),
Conjugate-computation variational inference, section 6.

    python examples/digits_vae.py
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from ngvi.fisher import MLP, RunningCurvature, fisher
from ngvi.fisher.likelihoods import Bernoulli, HeteroscedasticGaussian
from ngvi.nets.train import shuffled_batches

PIXELS, HIDDEN, LATENT = 64, 64, 4
ENCODER, DECODER = MLP((PIXELS, HIDDEN, 2 * LATENT)), MLP((LATENT, HIDDEN, PIXELS))
LEARN, BATCH, EPOCHS = 1500, 100, 40
SIZES = {"Adam": (0.003, 0.01, 0.03), "natural": (3e-4, 1e-3, 3e-3)}
"""Learning rates, and the divergence that a step may have, in nats a picture."""
LEARNING_RATE, DAMPING, MOMENTUM, RENEW = 0.03, 0.1, 0.9, 10
Params = dict[str, Any]


def encoder(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """m and log σ."""
    mean, log_sd = jnp.split(ENCODER(params, x), 2, -1)
    return mean, log_sd


def latents(params: Params, x: jax.Array, key: jax.Array) -> jax.Array:
    mean, log_sd = encoder(params["encoder"], x)
    return mean + jnp.exp(log_sd) * jax.random.normal(key, mean.shape)


@jax.jit
def loss(params: Params, x: jax.Array, key: jax.Array) -> jax.Array:
    """−ELBO in nats a picture, of pixels between 0 and 1."""
    f = encoder(params["encoder"], x)
    # Logits of the pixels.
    g = DECODER(params["decoder"], latents(params, x, key))
    prior = jax.tree.map(jnp.zeros_like, f)
    kl = jax.vmap(HeteroscedasticGaussian().kl)(f, prior)
    # Of grey pixels: the mean over what black and white ones would be drawn.
    surprise = jax.nn.softplus(g) - x * g
    return (kl + surprise.sum(-1)).mean()


def fishers(params: Params, x: jax.Array, key: jax.Array) -> dict[str, Any]:
    """Of both halves."""
    of_z, of_labels = jax.random.split(key)
    z = latents(params, x, of_z)
    make = partial(fisher, kind="sampled", structure="kronecker", key=of_labels)
    return {
        "encoder": make(
            encoder, params["encoder"], x, likelihood=HeteroscedasticGaussian()
        ),
        "decoder": make(DECODER, params["decoder"], z, likelihood=Bernoulli()),
    }


@partial(jax.jit, static_argnames="epochs")
def natural(params: Params, x: jax.Array, max_kl: jax.Array, epochs: int) -> tuple:
    """The parameters at the end, and the loss of every batch."""
    decay = 0.95
    first = fishers(params, x[:BATCH], jax.random.key(3))
    running = {name: RunningCurvature.begin(f, decay) for name, f in first.items()}

    def step(state: Any, of_step: Any) -> Any:
        params, velocity, running, damped, count = state
        rows, key = of_step
        of_loss, of_fisher = jax.random.split(key)
        value, gradient = jax.value_and_grad(loss)(params, x[rows], of_loss)

        def renewed() -> tuple:
            new = fishers(params, x[rows], of_fisher)
            after = {name: running[name].update(new[name]) for name in new}
            made = {name: r.curvature.damp(DAMPING) for name, r in after.items()}
            return after, made

        running, damped = jax.lax.cond(
            count % RENEW == 0, renewed, lambda: (running, damped)
        )
        steps = {name: damped[name].solve(gradient[name]) for name in damped}
        # ½ α² gᵀ(F + λ)⁻¹g is at most the ball.
        length = jnp.sqrt(2 * max_kl / optax.tree.vdot(gradient, steps))
        length = jnp.minimum(LEARNING_RATE, length)
        velocity = jax.tree.map(lambda v, s: MOMENTUM * v - length * s, velocity, steps)
        params = jax.tree.map(jnp.add, params, velocity)
        return (params, velocity, running, damped, count + 1), value

    damped = {name: f.damp(DAMPING) for name, f in first.items()}
    start = params, jax.tree.map(jnp.zeros_like, params), running, damped, 0
    (params, *_), values = jax.lax.scan(step, start, batches(epochs))
    return params, values


@partial(jax.jit, static_argnames="epochs")
def adam(params: Params, x: jax.Array, rate: jax.Array, epochs: int) -> tuple:
    """The parameters at the end, and the loss of every batch."""
    optimizer = optax.adam(rate)

    def step(state: Any, of_step: Any) -> Any:
        params, kept = state
        rows, key = of_step
        value, gradient = jax.value_and_grad(loss)(params, x[rows], key)
        updates, kept = optimizer.update(gradient, kept)
        return (optax.apply_updates(params, updates), kept), value

    start = params, optimizer.init(params)
    (params, _), values = jax.lax.scan(step, start, batches(epochs))
    return params, values


def batches(epochs: int) -> tuple[jax.Array, jax.Array]:
    """Rows and a key for every step."""
    of_order, of_steps = jax.random.split(jax.random.key(1))
    rows = shuffled_batches(of_order, LEARN, epochs, BATCH)
    return rows, jax.random.split(of_steps, len(rows))


def main() -> None:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    pictures, digits = jnp.asarray(x[order] / 16, jnp.float32), y[order]
    learn, test = pictures[:LEARN], pictures[LEARN:]
    keys = jax.random.split(jax.random.key(0))
    params = {"encoder": ENCODER.init(keys[0]), "decoder": DECODER.init(keys[1])}
    print(f"{'nats a picture':16s}{'size':>8s}{'learned':>10s}{'not seen':>10s}")
    runs: dict[str, Any] = {}
    for name, run in (("Adam", adam), ("natural", natural)):
        jax.block_until_ready(run(params, learn, 0.001, EPOCHS))
        for size in SIZES[name]:
            began = time.perf_counter()
            found, values = jax.block_until_ready(run(params, learn, size, EPOCHS))
            took = time.perf_counter() - began
            seen, new = (float(loss(found, x, keys[0])) for x in (learn, test))
            print(f"{name:16s}{size:8g}{seen:10.3f}{new:10.3f}")
            if name not in runs or seen < runs[name][0]:
                runs[name] = seen, np.asarray(values), took, size, found
    print()
    for name, (_, values, took, size, _) in runs.items():
        print(f"{name}, {size:g}: {1e3 * took / len(values):.2f} ms a step")
    draw(runs, test, digits[LEARN:])


def draw(runs: dict[str, Any], test: jax.Array, digits: np.ndarray) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    left, middle, right = axes
    for (name, run), colour in zip(runs.items(), ("C1", "C0"), strict=True):
        _, values, _, size, _ = run
        smooth = np.convolve(values, np.ones(15) / 15, "valid")
        steps = np.arange(15, len(values) + 1)
        left.plot(steps, smooth, colour, label=f"{name}, {size:g}")
    left.set(xlabel="step", ylim=(23, 32), title="−ELBO, nats a picture")
    left.legend(frameon=False)
    params = runs["natural"][-1]
    mean, _ = encoder(params["encoder"], test)
    middle.scatter(mean[:, 0], mean[:, 1], c=digits, cmap="tab10", s=6)
    middle.set(title="two of the latent means, by digit", xticks=[], yticks=[])
    z = jax.random.normal(jax.random.key(2), (48, LATENT))
    drawn = jax.nn.sigmoid(DECODER(params["decoder"], z)).reshape(6, 8, 8, 8)
    apart = jnp.pad(drawn, ((0, 0), (0, 0), (1, 1), (1, 1)))
    right.imshow(jnp.moveaxis(apart, 2, 1).reshape(60, 80), cmap="gray_r")
    right.set(title="drawn from the prior", xticks=[], yticks=[])
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/digits_vae.png", dpi=150)
    print("\nout/digits_vae.png: the training, the latents and new digits")


if __name__ == "__main__":
    main()
