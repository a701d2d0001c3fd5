"""A log density written in plain JAX, without a probabilistic language.

A banana-shaped density (Haario et al. 1999): the best Gaussian covers what it can, and
the verdict says when that is no longer enough.

    python examples/log_density.py
"""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402

import ngvi  # noqa: E402


def banana(z: dict, bend: float) -> jax.Array:
    straight = z["y"] + bend * (z["x"] ** 2 - 1)
    return -0.5 * (z["x"] ** 2 + straight**2)


def main() -> None:
    init = {"x": jnp.zeros(()), "y": jnp.zeros(())}
    print("bend   k-hat  sd of y  (exact)  verdict")
    for bend in (0.0, 0.1, 0.3, 1.0):
        posterior = ngvi.fit(banana, bend, init=init)
        exact = (1 + 2 * bend**2) ** 0.5
        print(
            f"{bend:4.1f}  {posterior.diagnostics.khat:6.2f}  "
            f"{posterior.sd['y']:7.2f}  {exact:7.2f}  {posterior.verdict.level}"
        )


if __name__ == "__main__":
    main()
