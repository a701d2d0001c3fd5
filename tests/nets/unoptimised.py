"""Predictions and trainings compiled without optimisation, which is what takes time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ngvi.nets import predictive
from tests.programs import compiled


@pytest.fixture(autouse=True, scope="module")
def quick_predictions() -> Iterator[None]:
    static = predictive.STATIC
    program = compiled(predictive._over_rows.__wrapped__, static_argnums=static)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictive, "_over_rows", program)
        yield


@pytest.fixture(autouse=True, scope="module")
def quick_training() -> Iterator[None]:
    # Imported here: the estimators need scikit-learn.
    from ngvi.nets.estimators import training

    names = "rule", "epochs", "batch_size"
    program = compiled(training.run_epochs.__wrapped__, static_argnames=names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_epochs", program)
        yield
