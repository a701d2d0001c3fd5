"""Rats: growth curves with a varying intercept and slope.

Weights of thirty young rats on five weekly occasions. Each rat grows along its own
line; the lines come from a normal population. The age is centred at day 22, so an
intercept is a weight in the middle of the study and nearly independent of the slope.
Five weighings fix a rat's line well, so its line is sampled directly (centred): the
non-centred form would be the harder one here.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Gelfand, A. E., Hills, S. E., Racine-Poon, A. and Smith, A. F. M. (1990), "
    "Illustration of Bayesian inference in normal data models using Gibbs sampling, "
    "Journal of the American Statistical Association 85, 972-985, section 6."
)
LICENSE = "A published table of measurements: facts, free of copyright."

# Grams; one row a rat, one column an age.
WEIGHTS = """
151 199 246 283 320   145 199 249 293 354   147 214 263 312 328   155 200 237 272 297
135 188 230 280 323   159 210 252 298 331   141 189 231 275 305   159 201 248 297 338
177 236 285 350 376   134 182 220 260 296   160 208 261 313 352   143 188 220 273 314
154 200 244 289 325   171 221 270 326 358   163 216 242 281 312   160 207 248 288 324
142 187 234 280 316   156 203 243 283 317   157 212 259 307 336   152 203 246 286 321
154 205 253 298 334   139 190 225 267 302   146 191 229 272 302   157 211 250 285 323
132 185 237 286 331   160 207 257 303 345   169 216 261 295 333   157 205 248 289 316
137 180 219 258 291   153 200 244 286 324
"""


def model(age: ArrayLike, rats: int, weight: ArrayLike | None = None) -> None:
    """Weights (ages, rats) in grams; ``age`` (ages,) in days after day 22."""
    age = jnp.asarray(age)
    mu_alpha = numpyro.sample("mu_alpha", dist.Normal(250.0, 100.0))
    mu_beta = numpyro.sample("mu_beta", dist.Normal(0.0, 10.0))
    sigma_alpha = numpyro.sample("sigma_alpha", dist.HalfNormal(50.0))
    sigma_beta = numpyro.sample("sigma_beta", dist.HalfNormal(5.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(25.0))
    with numpyro.plate("rat", rats, dim=-1):
        alpha = numpyro.sample("alpha", dist.Normal(mu_alpha, sigma_alpha))
        beta = numpyro.sample("beta", dist.Normal(mu_beta, sigma_beta))
        with numpyro.plate("week", age.shape[0], dim=-2):
            mean = alpha + beta * age[:, None]
            numpyro.sample("weight", dist.Normal(mean, sigma), obs=weight)


def data() -> dict[str, np.ndarray | int]:
    """Thirty rats, weighed on days 8, 15, 22, 29 and 36."""
    age = np.array([8.0, 15.0, 22.0, 29.0, 36.0])
    weight = np.array(WEIGHTS.split(), dtype=float).reshape(30, 5)
    return {"age": age - age.mean(), "rats": 30, "weight": weight.T}
