"""K-FAC and EK-FAC beside the matrix that they stand for.

The Fisher matrix of a small network for digits, exact and approximated. K-FAC takes a
layer's block for a Kronecker product A ⊗ G, of the second moments of its inputs and of
the gradients at its outputs, as if one said nothing about the other. EK-FAC keeps the
eigenvectors of that and measures the eigenvalues: of all matrices with those
eigenvectors it is the nearest. Nothing between layers is kept by either.

What an approximation F̂ is good for is its step. The last column is the cosine between
(F̂ + λ I)⁻¹∇ and (F + λ I)⁻¹∇ in the metric F + λ I; its square is the share of the
quadratic model's decrease that the step achieves at its best length.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature; George et al. (2018), Fast approximate natural gradient descent
in a Kronecker-factored eigenbasis.

    python examples/kfac_blocks.py
"""

from itertools import pairwise
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from matplotlib.colors import LogNorm  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

from ngvi.fisher import MLP, Curvature, fisher  # noqa: E402
from ngvi.fisher.likelihoods import Categorical  # noqa: E402

WIDTHS = (16, 8, 10)
NET = MLP(WIDTHS)
DAMPING, EPOCHS, LENGTH = 1e-3, 1000, 0.5
NAMES = {
    "dense": "exact",
    "block-diagonal": "exact blocks",
    "kronecker-eigen": "EK-FAC",
    "kronecker": "K-FAC",
    "diagonal": "diagonal",
}


def random_network() -> list:
    rng = np.random.default_rng(0)
    return [
        {"w": rng.normal(size=(n, m)) / np.sqrt(n), "b": np.zeros(m)}
        for n, m in pairwise(WIDTHS)
    ]


def loss(params: list, x: jax.Array, y: jax.Array) -> jax.Array:
    return -jax.vmap(Categorical().log_prob)(NET(params, x), y).mean()


slope = jax.jit(jax.grad(loss))


@jax.jit
def train(params: list, x: jax.Array, y: jax.Array) -> list:
    """By plain gradients."""

    def step(params: list, _: None) -> tuple[list, None]:
        gradient = jax.grad(loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - LENGTH * g, params, gradient), None

    return jax.lax.scan(step, params, length=EPOCHS)[0]


def structures(params: list, x: jax.Array) -> dict[str, Curvature]:
    return {
        name: fisher(NET, params, x, likelihood="categorical", structure=name)
        for name in NAMES
    }


def layers(matrix: np.ndarray) -> list[np.ndarray]:
    """The diagonal blocks."""
    sizes = [(n + 1) * m for n, m in pairwise(WIDTHS)]
    ends = np.cumsum([0, *sizes])
    return [matrix[a:b, a:b] for a, b in pairwise(ends)]


def report(params: list, x: jax.Array, y: jax.Array) -> dict[str, np.ndarray]:
    """A table; the matrices."""
    curvatures = structures(params, x)
    matrices = {name: np.asarray(f.dense()) for name, f in curvatures.items()}
    exact, size = matrices["dense"], np.linalg.norm
    metric = exact + DAMPING * np.eye(len(exact))
    gradient = ravel_pytree(slope(params, x, y))[0]
    best = curvatures["dense"].solve(gradient, DAMPING)
    for name, matrix in matrices.items():
        blocks = [
            size(a - b) / size(b)
            for a, b in zip(layers(matrix), layers(exact), strict=True)
        ]
        whole = size(matrix - exact) / size(exact)
        step = curvatures[name].solve(gradient, DAMPING)
        cosine = step @ metric @ best
        cosine /= np.sqrt((step @ metric @ step) * (best @ metric @ best))
        errors = "".join(f"{error:12.3f}" for error in (*blocks, whole))
        print(f"{NAMES[name]:14s}{errors}", end="")
        print(f"{np.trace(matrix) / np.trace(exact):12.3f}{cosine:10.3f}")
    return matrices


def main() -> None:
    x, y = load_digits(return_X_y=True)
    # Means of 2 × 2 pixels, from −1 to 1.
    x = x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 8 - 1
    start = random_network()
    trained = train(start, x, y)
    for when, params in (("at random", start), ("trained", trained)):
        right = (NET(params, x).argmax(1) == y).mean()
        print(f"parameters {when}, {right:.0%} of digits right")
        print(f"{'relative error:':14s}{'layer 1':>11s}{'layer 2':>12s}", end="")
        print(f"{'whole':>12s}{'trace':>12s}{'step':>10s}")
        matrices = report(params, x, y)
        print()
    draw(matrices)


def draw(matrices: dict[str, np.ndarray]) -> None:
    columns = ["dense", "kronecker", "kronecker-eigen"]
    figure, panels = plt.subplots(3, 3, figsize=(9.2, 9), layout="constrained")
    for j, name in enumerate(columns):
        panels[0, j].set_title(NAMES[name])
        for i, part in enumerate([matrices[name], *layers(matrices[name])]):
            # The exact matrix, in the first column, sets the scale of a row.
            images = panels[i, 0].images
            scale = images[0].norm if images else LogNorm(1e-4 * part.max(), part.max())
            size = np.maximum(abs(part), scale.vmin)
            panels[i, j].imshow(size, cmap="magma", norm=scale, interpolation="nearest")
            panels[i, j].set(xticks=[], yticks=[])
    for row, part in zip(panels, ["whole", "layer 1", "layer 2"], strict=True):
        row[0].set_ylabel(part)
        figure.colorbar(row[0].images[0], ax=row, label="|entry|")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/kfac_blocks.png", dpi=150)
    print("out/kfac_blocks.png: the matrices of the trained network")


if __name__ == "__main__":
    main()
