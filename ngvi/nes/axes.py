"""Functions that are sums of functions of one number each, minimised axis by axis.

    f(x) = Σᵢ gᵢ(xᵢ)   ⇔   f(x + Σ δᵢeᵢ) − f(x) = Σᵢ [f(x + δᵢeᵢ) − f(x)] for all x, δ

D + 2 evaluations refute that for almost any other function. Where two random δ cannot,
D searches on a line take the place of one in D dimensions, side by side, and the value
where their minima meet says whether that was right.

On a line the next point halves the easiest interval: the one in which a parabola of the
least curvature

    a = ((√(y₁ − y) + √(y₂ − y)) / (x₂ − x₁))²

would reach down to y, a little below the best value so far. So valleys are visited in
the order of how wide they may be, and the search is over when a better one would have
to be sharper than the one found. Beside it a parabola through the best three points
finds the bottom. Where the best point is an end of the line, the line is made longer.

Source: Swarzberg, Seront and Bersini (1994), S.T.E.P.: the easiest way to optimize a
function; Pošík and Baudiš (2015), Dimension selection in axis-parallel Brent-STEP
method for black-box optimization of separable continuous functions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_ROUNDING = 100
"""Units of rounding of D values that may separate two sides of the equation."""
_SHARPER = (4.0, 16.0, 64.0)
"""How much more curved than the valley found another one may be, to be looked for: in
a first search, a second and a third."""
_LONGEST = 1_000
"""Points on a line; a function that needs more is left to the other methods."""
_TRIES = 2


class AxisSearch:
    """The search, by asking and telling.

    Args:
        x0: where the axes cross, shape (D,).
        sigma: an eighth of the length of each line at first, shape (D,).
        lower: bounds, −∞ for none.
        upper: bounds, ∞ for none.
        tolerance: of values.
        seed: of the directions in which the sum is tested.
    """

    def __init__(
        self,
        x0: Float[np.ndarray, "d"],
        sigma: Float[np.ndarray, "d"],
        lower: Float[np.ndarray, "d"],
        upper: Float[np.ndarray, "d"],
        tolerance: float,
        seed: int,
    ) -> None:
        self.x0, self.sigma, self.lower, self.upper = x0, sigma, lower, upper
        self.tolerance = tolerance
        self._eps = float(np.finfo(x0.dtype).eps)
        self._rng = np.random.default_rng([seed, 2])
        self._tested, self._round = 0, 0
        self.base, self._rounding = np.nan, np.nan
        """f(x0), and what may separate two sides of the equation."""
        self.lines: list[Line] = []
        self._open: list[int] = []
        """The lines that the points asked for belong to, in their order."""
        self.ended, self.solved = False, False
        """Solved: what the lines say adds up, and no better valley is likely."""

    @property
    def dim(self) -> int:
        """D."""
        return len(self.x0)

    @property
    def most(self) -> int:
        """Points asked for at once: three on each line, or D + 2 at the start."""
        return max(3 * self.dim, self.dim + 2)

    def ask(self) -> Float[np.ndarray, "n d"]:
        """The next points, at most `most`."""
        if self._tested < _TRIES:
            return self._corner()
        points, self._open = [], []
        for i, line in enumerate(self.lines):
            for t in line.ask(_SHARPER[self._round]):
                points.append(self._on_axis(i, t))
                self._open.append(i)
        if not points:
            # All lines are done: what they add up to is to be seen.
            points = [np.array([line.best for line in self.lines], self.x0.dtype)]
        return np.stack(points)

    def _on_axis(self, i: int, t: float) -> Float[np.ndarray, "d"]:
        point = self.x0.copy()
        point[i] = t
        return point

    def _corner(self) -> Float[np.ndarray, "n d"]:
        """x0 (once), a step from it along each axis, and all of them together."""
        steps = self.sigma * self._rng.uniform(0.5, 1, self.dim)
        steps *= self._rng.choice([-1, 1], self.dim)
        moved = self.x0 + steps
        inside = (moved >= self.lower) & (moved <= self.upper)
        other = self.x0 - steps
        moved = np.where(inside, moved, np.clip(other, self.lower, self.upper))
        along = np.where(np.eye(self.dim, dtype=bool), moved, self.x0)
        together = [moved] if self._tested else [self.x0, moved]
        self._moved = moved
        return np.concatenate([along, together])

    def tell(self, values: Float[np.ndarray, "n"]) -> None:
        """Values of the points asked for, in their order; NaN ends the search."""
        if not np.isfinite(values).all():
            self.ended = True
        elif self._tested < _TRIES:
            self._test(values)
        elif self._open:
            for i, value in zip(self._open, values, strict=True):
                self.lines[i].tell(value)
            self.ended = any(line.lost for line in self.lines)
        else:
            self._sum_up(float(values[0]))

    def _sum_up(self, value: float) -> None:
        """All lines are done: go on from what they add up to, if they do."""
        expected = self.base + sum(line.value - self.base for line in self.lines)
        self.solved = self._agree(value, expected)
        self._round += 1
        self.ended = not self.solved or self._round == len(_SHARPER)
        self.x0 = np.array([line.best for line in self.lines], self.x0.dtype)
        self.base = value
        # The first x0 may have been so high up that its values have few digits here.
        hidden = self._rounding if self._round == 1 else 0.0
        for line in self.lines:
            line.rebase(value, hidden)

    def _test(self, values: Float[np.ndarray, "n"]) -> None:
        if not self._tested:
            self.base, values = float(values[-2]), np.delete(values, -2)
        along, together = values[:-1], float(values[-1])
        expected = self.base + float((along - self.base).sum())
        largest = max(float(np.abs(values).max()), abs(self.base))
        self._rounding = _ROUNDING * self._eps * self.dim * largest
        self.ended = not self._agree(together, expected) or self.dim == 1
        if not self._tested:
            self.lines = [
                Line(x, self.base, step, (low, high), self.tolerance / self.dim)
                for x, step, low, high in zip(
                    self.x0, self.sigma, self.lower, self.upper, strict=True
                )
            ]
        for line, t, value in zip(self.lines, self._moved, along, strict=True):
            line.add(float(t), float(value))
        self._tested += 1

    def _agree(self, value: float, expected: float) -> bool:
        return abs(value - expected) <= self._rounding + self.tolerance


class Line:
    """The search for the least value of a function of one number.

    Args:
        x: a point; its type is that of all points.
        value: its value.
        step: an eighth of the length of the line at first.
        ends: where the line must end, −∞ and ∞ for nowhere.
        tolerance: of values.
    """

    def __init__(
        self,
        x: np.floating,
        value: float,
        step: float,
        ends: tuple[float, float],
        tolerance: float,
    ) -> None:
        self.x, self.y = np.array([x]), np.array([value])
        self.lower, self.upper = ends
        self.tolerance, self._eps = tolerance, float(np.finfo(x.dtype).eps)
        low, high = max(self.lower, float(x - 4 * step)), float(x + 4 * step)
        self._next = [t for t in (low, min(self.upper, high)) if t != x]
        self._asked: list[float] = []
        self.lost = False
        """Whether the line has become too long a list."""

    @property
    def best(self) -> float:
        """Where the least value was found."""
        return float(self.x[self.y.argmin()])

    @property
    def value(self) -> float:
        """The least value."""
        return float(self.y.min())

    def add(self, x: float, value: float) -> None:
        """A value that is known."""
        at = np.searchsorted(self.x, x)
        if at < len(self.x) and self.x[at] == x:
            return
        self.x, self.y = np.insert(self.x, at, x), np.insert(self.y, at, value)

    def rebase(self, value: float, rounding: float) -> None:
        """The other numbers of x have changed: the least value is another one now, and
        of what rounding had hidden under the old ones nothing is kept."""
        above = self.y - self.value
        keep = above > rounding
        keep[[0, int(above.argmin()), -1]] = True
        self.x, self.y = self.x[keep], value + above[keep]

    def ask(self, sharper: float) -> list[float]:
        """Where to look next for valleys so much sharper than the best one; nowhere
        when there can be none."""
        if self.lost:
            return []
        self._asked = self._next or self._candidates(sharper)
        self._next = []
        self.lost = len(self.x) > _LONGEST
        return list(self._asked)

    def tell(self, value: float) -> None:
        """The value of the first point asked for that has none."""
        self.add(self._asked.pop(0), float(value))

    def _candidates(self, sharper: float) -> list[float]:
        at = int(self.y.argmin())
        width = self.x[-1] - self.x[0]
        # Longer, if the line goes down at its end.
        if at == 0 and self.x[0] > self.lower and self.y[0] < self.y[1]:
            return [max(self.lower, self.x[0] - width)]
        if (
            at == len(self.x) - 1
            and self.x[-1] < self.upper
            and self.y[-1] < self.y[-2]
        ):
            return [min(self.upper, self.x[-1] + width)]
        bottom, gain = self._parabola(at)
        least = max(self.tolerance, 4 * self._eps * abs(self.y[at]))
        gap, above = np.diff(self.x), self.y - self.y[at]
        root = np.sqrt(above + least)
        need = ((root[:-1] + root[1:]) / gap) ** 2
        # What is as low as the best at both its ends promises nothing; nor can rounding
        # halve the shortest intervals.
        flat = np.maximum(above[:-1], above[1:]) <= least
        shortest = 8 * self._eps * np.abs(self.x).max()
        need[(flat & (gap < width / 16)) | (gap <= shortest)] = np.inf
        beside = slice(max(at - 1, 0), at + 1)
        found = []
        if gain > least:
            wide = at if gap[at] > gap[at - 1] else at - 1
            found = [bottom, float(self.x[wide] + gap[wide] / 2)]
        else:
            need[beside] = np.inf
        # The wider side of the valley: another one may be as steep on both.
        sides = [self._ascent(at, -1), self._ascent(at, 1)]
        valley = min((side for side in sides if side > 0), default=0.0)
        easiest = int(need.argmin())
        if need[easiest] < sharper * valley and np.isfinite(need[easiest]):
            middle = float(self.x[easiest] + gap[easiest] / 2)
            found = [middle, *[t for t in found if abs(t - middle) > gap[easiest] / 8]]
        cast = np.array(found, self.x.dtype).tolist()
        return [t for t in cast if t not in self.x]

    def _ascent(self, at: int, side: int) -> float:
        """How curved the way up from the best point to the next hilltop is: the largest
        coefficient of a square, but of its first sixteenth."""
        x, y = self.x[at::side], self.y[at::side]
        falls = np.flatnonzero(np.diff(y) < 0)
        top = int(falls[0]) if falls.size else len(y) - 1
        far, high = np.abs(x[1 : top + 1] - x[0]), y[1 : top + 1] - y[0]
        return float((high / far**2)[far >= far[-1] / 16].max()) if top else 0.0

    def _parabola(self, at: int) -> tuple[float, float]:
        """Through the best point and its neighbours: where its bottom is, and how far
        below the best value."""
        if at == 0 or at == len(self.x) - 1:
            return self.best, 0.0
        (a, b, c), (p, q, r) = self.x[at - 1 : at + 2], self.y[at - 1 : at + 2]
        left, right = (q - p) / (b - a), (r - q) / (c - b)
        curvature = (right - left) / (c - a)
        if not curvature > 0:
            return self.best, 0.0
        slope = (left * (c - b) + right * (b - a)) / (c - a)
        return float(b - slope / (2 * curvature)), float(slope**2 / (4 * curvature))
