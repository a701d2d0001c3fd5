"""Debye's uniform expansions of modified Bessel functions, as tables of polynomials.

With S = √(κ² + ν²) and q = ν²/S², w = κ I_ν'(κ)/I_ν(κ) solves κ w' + w² = κ² + ν², and

    w = Σ_{k≥0} S^{1−k} P_k(q),   P₀ = 1,
    2 P_{k+1} = −Σ_{i=1..k} P_i P_{k+1−i} − (1 − q) [(1 − k) P_k − 2 q P_k'],

because κ d/dκ takes S to (1 − q) S and q to −2q (1 − q). Every P_k with k ≥ 1 has the
factor 1 − q = κ²/S². Nothing is lost at either end: the expansion is one in 1/S,
uniformly in ν ≥ 0 and κ ≥ 0. With sixteen terms and S ≥ 30 its error is 1e-17.

Source: NIST Digital Library of Mathematical Functions, §10.41; the recurrence is the
Riccati equation's.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import NamedTuple

from jaxtyping import Array, Float

from ngvi.families.special.calculus import polynomial

Polynomial = list[Fraction]
Table = tuple[tuple[float, ...], ...]


class DebyeTables(NamedTuple):
    """Polynomials in q that multiply 1, 1/S, 1/S², ...; see `bessel` for their use."""

    ratio: Table  # P_k / (1 − q), k ≥ 1
    slope: Table  # (1 − k) P_k − 2 q P_k' − P_k / (1 − q), k ≥ 1
    logarithm: Table  # of S (log I_ν − its leading term)


@cache
def debye_tables(terms: int) -> DebyeTables:
    """The first so many polynomials of each expansion."""
    series: list[Polynomial] = [[Fraction(1)]]
    for k in range(terms + 1):
        turned = _turned(k, series[k])
        total = _product([Fraction(1), Fraction(-1)], turned)
        for i in range(1, k + 1):
            total = _sum(total, _product(series[i], series[k + 1 - i]))
        series.append([-c / 2 for c in total])
    ratio = [_without_factor(p) for p in series[1:]]
    slope = [
        _sum(_turned(k, series[k]), [-c for c in ratio[k - 1]])
        for k in range(1, terms + 1)
    ]
    logarithm = [
        [-c / (k + 2 * m) for m, c in enumerate(ratio[k])] for k in range(1, terms + 1)
    ]
    return DebyeTables(*(_floats(t[:terms]) for t in (ratio, slope, logarithm)))


def evaluate(
    table: Table, q: Float[Array, "*s"], inverse_s: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """Σ_k table_k(q) / S^k."""
    value = polynomial(table[-1], q)
    for row in reversed(table[:-1]):
        value = value * inverse_s + polynomial(row, q)
    return value


def _turned(k: int, p: Polynomial) -> Polynomial:
    """(1 − k) P − 2 q P'."""
    return [(1 - k - 2 * m) * c for m, c in enumerate(p)]


def _without_factor(p: Polynomial) -> Polynomial:
    """P / (1 − q), exact: the quotient's coefficients are the partial sums."""
    sums: Polynomial = []
    for c in p[:-1]:
        sums.append(c + (sums[-1] if sums else 0))
    return sums


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    result = [Fraction(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            result[i + j] += x * y
    return result


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    size = max(len(a), len(b))
    a, b = ([*p, *[Fraction(0)] * (size - len(p))] for p in (a, b))
    return [x + y for x, y in zip(a, b, strict=True)]


def _floats(table: list[Polynomial]) -> Table:
    return tuple(tuple(float(c) for c in p) for p in table)
