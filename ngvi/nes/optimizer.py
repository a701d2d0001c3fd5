"""Ask for points, tell their values: a search whose evaluations are someone else's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from ngvi.nes.checks import check_whole
from ngvi.nes.generation import Run, programs, run_key
from ngvi.nes.lattice import Lattice
from ngvi.nes.methods import choose_method, make_strategy
from ngvi.nes.start import Start
from ngvi.nes.stopping import Stopping, bounded, converged, reasons, towards
from ngvi.nes.told import Asking, Told, best_of, make_generation

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

# Points asked for and never told are forgotten after so many generations' worth.
_PATIENCE = 100


class Optimizer:
    """A search by asking and telling.

    Points may be asked for in any number and told in any order, each with its value, or
    not at all; others may be injected. Whenever `popsize` values have come in the
    distribution moves. The same seed, asked and told alike, gives the same points; a
    copy by pickling goes on like the original.

    Args:
        x0: where to start; its D numbers are a point's coordinates.
        sigma0: as in `ngvi.minimize`.
        method: as in `ngvi.minimize`; "auto" is a strategy and nothing around it.
        popsize: values that make a generation; by default 4 + 3 log D.
        seed: of the draws.
        bounds: as in `ngvi.minimize`.
        integrality: as in `ngvi.minimize`.
        maximize: larger values are better.
        stopping: the limits of `stop`.

    Raises:
        TypeError, ValueError: as `ngvi.minimize`.

    Example:
        >>> from ngvi import nes
        >>> search = nes.Optimizer([1.0, 2.0], 0.5)
        >>> while not search.stop():
        ...     points = search.ask()
        ...     search.tell(points, (points**2).sum(1))
        >>> bool(search.result.fun < 1e-6)
        True
    """

    def __init__(
        self,
        x0: Any,
        sigma0: Any = None,
        *,
        method: str = "auto",
        popsize: int | None = None,
        seed: int = 0,
        bounds: Any = None,
        integrality: Any = None,
        maximize: bool = False,
        stopping: Stopping | None = None,
    ) -> None:
        start = Start.of(x0, sigma0, bounds, integrality)
        self.layout, self.box = start.layout, start.box
        self.method = choose_method(method, start.dim)
        self.strategy = make_strategy(self.method, start.dim, popsize)
        check_whole("seed", seed, 0)
        self._asking = Asking(run_key(int(seed), 0), start.box)
        self.sign = -1.0 if maximize else 1.0
        self.stopping = bounded(towards(stopping or Stopping(), self.sign))
        # Sent to the device once, not in every generation.
        self._limits = jax.device_put(self.stopping)
        compiled = programs(self.strategy)
        self.run: Run = compiled.begin(start.x0, start.sigma, start.box)
        drawn = compiled.propose(self.run, self._asking.key, start.box)
        self._first: tuple[Any, Any] = jax.device_get(drawn)
        """Draws and points of this generation's first `popsize`."""
        self.generation = 0
        """Generations so far."""
        self._pending: dict[bytes, list[Told]] = {}
        """What was asked for and not told; two draws may be one point."""
        self._told: list[Told] = []

    @property
    def dim(self) -> int:
        """D."""
        return self.layout.dim

    @property
    def popsize(self) -> int:
        """Values that make a generation."""
        return self.strategy.popsize

    def ask(self, n: int | None = None) -> Float[np.ndarray, "n d"]:
        """Points to be evaluated.

        Args:
            n: how many; by default `popsize`.

        Raises:
            ValueError: n is no positive whole number.
        """
        n = check_whole("n", self.popsize if n is None else n, 1)
        points: list[np.ndarray] = []
        for _ in range(n):
            draw = self._asking.next(
                self.strategy, self.run, self.generation, self._first
            )
            self._pending.setdefault(draw.point.tobytes(), []).append(draw)
            points.append(draw.point)
        while len(self._pending) > max(_PATIENCE * self.popsize, n):
            del self._pending[next(iter(self._pending))]
        return np.stack(points)

    def tell(self, xs: Any, values: Any) -> None:
        """The values of points asked for; NaN or an infinity for a failed evaluation.

        Points asked of an earlier distribution are drawn in if they are far out now.

        Args:
            xs: shape (n, D), or (D,) for a single one.
            values: shape (n,), or a number.

        Raises:
            ValueError: shapes that do not fit, or points that were not asked for.
        """
        points, numbers = self._checked(xs, values)
        keys = [x.tobytes() for x in points]
        for key, times in Counter(keys).items():
            if times > len(self._pending.get(key, ())):
                raise ValueError(
                    f"the point {points[keys.index(key)]} is waiting for no value: it "
                    "was not asked for, was told already, or was asked for "
                    f"{_PATIENCE} generations ago; `inject` takes points from elsewhere"
                )
        for key, value in zip(keys, numbers, strict=True):
            draw = self._pending[key].pop(0)
            if not self._pending[key]:
                del self._pending[key]
            self._take(draw, value)

    def inject(self, xs: Any, values: Any) -> None:
        """Points from elsewhere with their values, drawn in if they are far out.

        They take part in the generation like those asked for; a few good ones are
        plenty, whole generations of them lead nowhere new.

        Args:
            xs: shape (n, D), or (D,) for a single one.
            values: shape (n,), or a number.

        Raises:
            ValueError: shapes that do not fit, or points that are NaN, out of bounds,
                or no integers where they must be.
        """
        points, numbers = self._checked(xs, values)
        self._check(points)
        for x, value in zip(points, numbers, strict=True):
            self._take(self._asking.foreign(x), value)

    def _take(self, draw: Told, value: float) -> None:
        self._told.append(draw._replace(value=float(value)))
        if len(self._told) == self.popsize:
            self._update()

    def _checked(self, xs: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Points and values, to be minimised, as arrays."""
        # A copy: a point of this generation must not move with the caller's array.
        points = np.array(xs, self.run.best_point.dtype)
        if points.ndim == 1:
            points = points[None]
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise ValueError(
                f"points must have shape (n, {self.dim}), got {np.shape(xs)}"
            )
        numbers = np.atleast_1d(np.asarray(values, float))
        if numbers.shape != (len(points),):
            raise ValueError(
                f"{len(points)} points need as many values, got shape "
                f"{np.shape(values)}"
            )
        return points, self.sign * numbers

    def _check(self, points: np.ndarray) -> None:
        if not np.isfinite(points).all():
            raise ValueError("points must be finite; values need not be")
        if self.box is None:
            return
        below = points < np.asarray(self.box.lower)
        above = points > np.asarray(self.box.upper)
        if (below | above).any():
            i = int(np.argmax((below | above).any(1)))
            raise ValueError(f"a point lies out of bounds: {points[i]}")
        if isinstance(self.box, Lattice):
            broken = np.asarray(self.box.whole) & (points != np.round(points))
            if broken.any():
                i = int(np.argmax(broken.any(1)))
                raise ValueError(f"a point is no integer where it must be: {points[i]}")

    def _update(self) -> None:
        eps, points, values = make_generation(
            self._told, self.run, self.generation, self.box
        )
        self._told = []
        self.run, *drawn, _ = programs(self.strategy).step(
            self.run,
            self._asking.key,
            self.box,
            eps,
            points,
            values.astype(eps.dtype),
            self._limits,
        )
        self._first = jax.device_get(tuple(drawn))
        self.generation += 1

    def stop(self) -> Mapping[str, float]:
        """The reasons to stop, with the number each has looked at; empty to go on."""
        found = reasons(
            np.asarray(self.run.measured),
            np.asarray(self.run.fired),
            self.generation,
            self.generation * self.popsize,
            self.popsize,
            self.stopping,
        )
        if "ftarget" in found:
            found["ftarget"] *= self.sign
        return found

    @property
    def result(self) -> OptimizeResult:
        """The best point so far, told values of this generation included."""
        from scipy.optimize import OptimizeResult

        point, value = np.asarray(self.run.best_point), float(self.run.best_value)
        point, value = best_of(self._told, point, value)
        waiting = [told.value for told in self._told]
        why = self.stop()
        return OptimizeResult(
            x=self.layout.unflatten(point.copy()),
            fun=self.sign * value,
            nfev=self.generation * self.popsize + len(waiting),
            nit=self.generation,
            success=converged(why) and bool(np.isfinite(value)),
            message="; ".join(f"{n}: {v:.6g}" for n, v in why.items()) or "in progress",
            nfailed=int(self.run.failed) + int((~np.isfinite(waiting)).sum()),
            distribution=self.run.state.q,
            method=self.method,
        )
