"""Lynx and hares: the parameters of a differential equation, from 21 years of furs.

    du/dt = (α − β v) u,   dv/dt = (δ u − γ) v,

Lotka and Volterra's hares u and lynx v, fitted to the pelts that the Hudson's Bay
Company collected from 1900 to 1920, in thousands. Rates that are a little off put the
peaks into the wrong years, so the error is full of local optima; rates that are far off
blow the integrator up, which costs a search by ranks nothing. The table compares with
twenty gradient descents (L-BFGS-B) from random starts in the same box.

Source of the data: Howard (2009), Modeling basics, lecture notes, Texas A&M University.

    python examples/fit_ode.py
"""

from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import scipy.optimize  # noqa: E402

import ngvi  # noqa: E402

# fmt: off
HARES = [30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1,
         40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7]
LYNX = [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4,
        8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6]
# fmt: on
PELTS = np.array([HARES, LYNX]).T
NAMES = ["alpha", "beta", "gamma", "delta", "hares in 1900", "lynx in 1900"]
# Powers of ten.
BOUNDS = [(-2, 1), (-3, 0), (-2, 1), (-3, 0), (0, 2), (0, 2)]
STEPS = 12
"""Of the integrator, a year."""


def flow(state: jax.Array, rates: jax.Array) -> jax.Array:
    (u, v), (alpha, beta, gamma, delta) = state, rates
    return jnp.stack([(alpha - beta * v) * u, (delta * u - gamma) * v])


def populations(logs: jax.Array, years: int = 21) -> jax.Array:
    """Hares and lynx, `STEPS` times a year, by the classical Runge–Kutta method."""
    rates, start = 10 ** logs[:4], 10 ** logs[4:]
    h = 1 / STEPS

    def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        a = flow(state, rates)
        b = flow(state + h / 2 * a, rates)
        c = flow(state + h / 2 * b, rates)
        d = flow(state + h * c, rates)
        return state + h / 6 * (a + 2 * b + 2 * c + d), state

    return jax.lax.scan(step, start, length=STEPS * (years - 1) + 1)[1]


def error(logs: jax.Array, pelts: jax.Array) -> jax.Array:
    """The root mean square of log(pelts/population): pelts vary by factors."""
    off = jnp.log(pelts) - jnp.log(populations(logs)[::STEPS])
    return jnp.sqrt((off**2).mean())


def main() -> None:
    low, high = np.array(BOUNDS, float).T
    found = ngvi.minimize(
        error, (low + high) / 2, args=(PELTS,), bounds=BOUNDS, budget=15_000
    )

    starts = np.random.default_rng(0).uniform(low, high, (20, len(BOUNDS)))
    slope = jax.jit(jax.value_and_grad(error))
    descents = [
        scipy.optimize.minimize(slope, x, args=(PELTS,), jac=True, bounds=BOUNDS)
        for x in starts
    ]
    ends = np.nan_to_num([d.fun for d in descents], nan=np.inf)
    order = ends.argsort()
    best, middle = descents[order[0]], descents[order[np.isfinite(ends).sum() // 2]]

    print(f"ngvi: {found.nfev:,} evaluations; {found.message}")
    near, lost = int((ends < 1.01 * found.fun).sum()), int(np.isinf(ends).sum())
    slopes = sum(d.nfev for d in descents)
    print(
        f"L-BFGS-B: {slopes:,} values and gradients; {near} of {len(ends)} starts end"
    )
    print(f"within 1% of ngvi's error, {lost} where the integrator blows up\n")
    print(f"{'':16s}{'ngvi':>10s}{'L-BFGS-B':>10s}{'its median':>12s}")
    columns = [10**fit.x for fit in (found, best, middle)]
    rows = dict(zip(NAMES, np.transpose(columns), strict=True))
    rows["rms log error"] = np.array([found.fun, best.fun, middle.fun])
    for name, (a, b, c) in rows.items():
        print(f"{name:16s}{a:10.4f}{b:10.4f}{c:12.4f}")
    draw(found.x, middle.x)


def draw(x: np.ndarray, other: np.ndarray) -> None:
    figure, panels = plt.subplots(
        1, 2, figsize=(9, 3.2), sharex=True, sharey=True, layout="constrained"
    )
    years = 1900 + np.arange(STEPS * 20 + 1) / STEPS
    fits = {"ngvi": x, "L-BFGS-B, from a median start": other}
    for axes, (name, logs) in zip(panels, fits.items(), strict=True):
        curves = np.asarray(populations(logs))
        for i, (animal, style) in enumerate({"hares": "C0o", "lynx": "C1s"}.items()):
            axes.plot(years[::STEPS], PELTS[:, i], style, markersize=4, label=animal)
            axes.plot(years, curves[:, i], style[:2])
        axes.set(title=name, xlabel="year", yscale="log", ylim=(2, 200))
        axes.xaxis.set_major_locator(plt.MaxNLocator(5, integer=True))
    panels[0].set_ylabel("pelts, thousands")
    panels[0].legend(frameon=False, ncols=2)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/fit_ode.png", dpi=150)
    print("\nout/fit_ode.png: the data and two fits")


if __name__ == "__main__":
    main()
