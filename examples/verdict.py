"""When a Gaussian is not enough: the same model twice, and what the verdict says.

Eight schools, centred and non-centred, each held against NUTS started from the fit. The
centred posterior is a funnel; its verdict says so, and the non-centred one is better.

    python examples/verdict.py
"""

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

import ngvi  # noqa: E402
from ngvi import zoo  # noqa: E402


def main() -> None:
    print(f"{'model':24} {'k-hat':>5}  {'tau: fit':>14}  {'tau: NUTS':>14}  verdict")
    for name in ("eight_schools_centered", "eight_schools"):
        entry = zoo.load(name)
        posterior = ngvi.fit(entry.model, **entry.data())
        exact = np.asarray(posterior.nuts(num_samples=1000).get_samples()["tau"])
        fit = f"{posterior.mean['tau']:.1f} ± {posterior.sd['tau']:.1f}"
        nuts = f"{exact.mean():.1f} ± {exact.std():.1f}"
        khat = posterior.diagnostics.khat
        level = posterior.verdict.level
        print(f"{name:24} {khat:5.2f}  {fit:>14}  {nuts:>14}  {level}")
        for line in (*posterior.verdict.reasons, *posterior.verdict.advice):
            print(f"    {line}")


if __name__ == "__main__":
    main()
