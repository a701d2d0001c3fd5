"""Tuning a support vector machine: five numbers that no grid can cover.

A classifier of breast tumours: its penalty, the width of its kernel, and how much each
of the data's three groups of features (means, standard errors, worst cells) counts. The
objective is scikit-learn's, called point by point; its values are known by evaluation
only. The table compares the search with as many random ones.

    python examples/tune_svm.py
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import ngvi

BUDGET = 160
NAMES = ["log10 C", "log10 gamma", "errors' weight", "worst's weight"]
BOUNDS = [(-2, 4), (-5, 1), (-2, 2), (-2, 2)]


def loss(margins: np.ndarray, y: np.ndarray) -> float:
    """The mean logistic loss of decision values."""
    return float(np.logaddexp(0, -(2 * y - 1) * margins).mean())


def weigh(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The features, the second and third group of ten by their weights."""
    return x * np.repeat(10 ** np.array([0.0, theta[2], theta[3]]), 10)


def machine(theta: np.ndarray) -> SVC:
    return SVC(C=10 ** theta[0], gamma=10 ** theta[1])


def cross_validated(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    weighted = weigh(theta, x)
    margins = np.empty(len(y))
    for train, held_out in folds.split(x, y):
        model = machine(theta).fit(weighted[train], y[train])
        margins[held_out] = model.decision_function(weighted[held_out])
    return loss(margins, y)


def main() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, stratify=y, random_state=0)
    scaler = StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(x_test)

    start = np.array([0.0, -1.5, 0.0, 0.0])
    found = ngvi.minimize(
        cross_validated, start, args=(x, y), bounds=BOUNDS, budget=BUDGET
    )
    rng = np.random.default_rng(0)
    guesses = rng.uniform(*np.array(BOUNDS, float).T, (BUDGET, len(BOUNDS)))
    guess = min(guesses, key=lambda theta: cross_validated(theta, x, y))

    print(f"{found.nfev} evaluations; {found.message}\n")
    print(f"{'':16s}{'start':>10s}{'random':>10s}{'ngvi':>10s}")
    columns = (start, guess, found.x)
    rows = {name: [c[i] for c in columns] for i, name in enumerate(NAMES)}
    rows["loss, folds"] = [cross_validated(c, x, y) for c in columns]
    models = [machine(c).fit(weigh(c, x), y) for c in columns]
    margins = [
        m.decision_function(weigh(c, x_test))
        for m, c in zip(models, columns, strict=True)
    ]
    rows["loss, test"] = [loss(m, y_test) for m in margins]
    for name, values in rows.items():
        print(f"{name:16s}" + "".join(f"{value:10.4f}" for value in values))


if __name__ == "__main__":
    main()
