"""Do verdicts tell the truth? Every model of the zoo, families and seeds, beside NUTS.

    python benchmarks/verdicts.py [MODEL ...] [--family NAME ...] [--seeds N]
                                  [--out FILE.json]

For every model a long run of NUTS (4 chains of 5,000 draws, from the default fit) is
taken for the truth; models whose chains disagree are left out. Each fit's error is its
largest over all scalar quantities: of a mean in sds, of an sd relative. An answer is
*good* within 0.15 sd and 15 %, *bad* beyond 0.35 sd or 35 %, *fair* between. Families:

- diagonal, full: `ngvi.fit(..., covariance=...)`;
- mean-field, mixture: `ngvi.fit(..., family=...)`.

Good verdicts on bad answers are lies; warnings on good answers are false alarms.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
from numpyro.diagnostics import split_gelman_rubin  # noqa: E402

import ngvi  # noqa: E402
from ngvi import zoo  # noqa: E402
from ngvi.bayes.summaries import columns  # noqa: E402

FAMILIES: dict[str, dict[str, Any]] = {
    "diagonal": {"covariance": "diagonal"},
    "mean-field": {"family": "mean-field"},
    "full": {"covariance": "full"},
    "mixture": {"family": "mixture"},
}
RHAT = 1.02
GOOD_MEAN, GOOD_SD = 0.15, 0.15
BAD_MEAN, BAD_SD = 0.35, 0.35


def truth(posterior: ngvi.Posterior) -> tuple[np.ndarray, np.ndarray] | None:
    """Means and sds of all scalar quantities by NUTS; None if the chains disagree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc = posterior.nuts(
            num_samples=5000, num_warmup=1000, target_accept_prob=0.95
        )
    grouped = jax.device_get(mcmc.get_samples(group_by_chain=True))
    sites = {site: grouped[site] for site in posterior.mean}
    every = {k: v.reshape(-1, *v.shape[2:]) for k, v in sites.items()}
    flat = columns(every)
    with np.errstate(divide="ignore", invalid="ignore"):
        rhat = split_gelman_rubin(flat.reshape(4, -1, flat.shape[1]))
    if np.nanmax(rhat) > RHAT:
        return None
    return flat.mean(0), flat.std(0)


def quality(posterior: ngvi.Posterior, known: tuple[np.ndarray, np.ndarray]) -> tuple:
    """The largest errors and what they make of the answer."""
    mean, sd = known
    draws = posterior.sample(8000, seed=9)
    values = columns({site: np.asarray(draws[site]) for site in posterior.mean})
    varies = sd > 0
    means = np.abs((values.mean(0) - mean)[varies] / sd[varies]).max()
    sds = np.abs(np.log(values.std(0)[varies] / sd[varies])).max()
    if means < GOOD_MEAN and sds < np.log1p(GOOD_SD):
        word = "good"
    elif means > BAD_MEAN or sds > np.log1p(BAD_SD):
        word = "bad"
    else:
        word = "fair"
    return float(means), float(np.expm1(sds)), word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=zoo.names(), metavar="MODEL")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=[*FAMILIES])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.models:
        entry = zoo.load(name)
        data = entry.data()
        known = truth(ngvi.fit(entry.model, **data))
        if known is None:
            print(f"{name:30} left out: the chains disagree", flush=True)
            continue
        for family in options.family:
            for seed in range(options.seeds):
                start = time.perf_counter()
                try:
                    fitted = ngvi.fit(
                        entry.model, seed=seed, **FAMILIES[family], **data
                    )
                except ValueError as refusal:
                    print(f"{name:30} {family:10} refused: {refusal}", flush=True)
                    break
                level = fitted.verdict.level
                seconds = time.perf_counter() - start
                mean, sd, word = quality(fitted, known)
                rows.append(
                    {
                        "model": name,
                        "family": family,
                        "seed": seed,
                        "verdict": level,
                        "answer": word,
                        "mean_error": mean,
                        "sd_error": sd,
                        "khat": fitted.diagnostics.khat,
                        "seconds": seconds,
                    }
                )
                print(
                    f"{name:30} {family:10} {seed:3d}  {level:12} {word:4}  "
                    f"mean {mean:.2f}  sd {sd:.0%}  {seconds:.1f} s",
                    flush=True,
                )
    table = Counter((row["verdict"], row["answer"]) for row in rows)
    print(f"\n{'verdict':14}{'good':>6}{'fair':>6}{'bad':>6}")
    for level in ("trustworthy", "means only", "do not trust"):
        counts = [table[level, word] for word in ("good", "fair", "bad")]
        print(f"{level:14}" + "".join(f"{count:6d}" for count in counts))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
