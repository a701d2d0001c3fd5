"""Settings of a rule that are out of their range, or do not go together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ngvi.nets import Rule
from ngvi.nets.gradient_measures import SquaredGradient


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision_rate": 1.5}, "precision_rate must be from 0 to 1, got 1.5"),
        ({"noise_rate": -1.0}, "noise_rate must be from 0 to 1, got -1.0"),
        ({"momentum": -0.1}, "momentum must be from 0 to 1, got -0.1"),
        ({"momentum": 1.0}, "momentum must be less than 1"),
        ({"damping": float("nan")}, "damping must be from 0 to inf, got nan"),
        ({"samples": 0}, "samples must be from 1 to inf, got 0"),
        ({"refresh": 0}, "refresh must be from 1 to inf, got 0"),
        ({"measure_every": 0}, "measure_every must be from 1 to inf, got 0"),
        ({"measure_every": 2, "refresh": 3}, "a multiple of measure_every, 2, got 3"),
        ({"trust": 0.0}, "trust must be positive, or None, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"retraction": "third"}, "must be 'first' or 'second', got 'third'"),
        ({"samples": 3, "antithetic": True}, "samples is odd, 3"),
        ({"fresh_every": 3}, "fresh_every must be a power of 2, got 3"),
        ({"accumulate": 0}, "accumulate must be from 1 to inf, got 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(SquaredGradient(), **settings)
    assert replace(Rule(SquaredGradient()), samples=4, antithetic=True).samples == 4
