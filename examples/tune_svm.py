"""Tuning a support vector machine: four numbers, each on a scale of its own.

A classifier of breast tumours: its penalty, the width of its kernel, and how much each
of the data's three groups of features (means, standard errors, worst cells) counts. The
objective is scikit-learn's, called point by point; its values are known by evaluation
only. The table and the picture compare the search with as many random points.

    python examples/tune_svm.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
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
    losses = np.array([cross_validated(theta, x, y) for theta in guesses])
    guess = guesses[losses.argmin()]

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
    draw(found.history, losses)


def draw(history: dict, losses: np.ndarray) -> None:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.2), sharex=True, layout="constrained"
    )
    evaluations = history["evaluations"]
    best = np.minimum.accumulate(history["best"])
    left.step(evaluations, best, "C0-", where="post", label="ngvi")
    guessed = np.minimum.accumulate(losses)
    left.step(np.arange(1, BUDGET + 1), guessed, "C1--", where="post", label="random")
    left.set(xlabel="evaluations", title="loss, best so far", yscale="log")
    left.legend(frameon=False)
    for i, style in enumerate(["C0-", "C1--", "C2-.", "C3:"]):
        right.plot(evaluations, history["mean"][:, i], style, label=NAMES[i])
    right.set(xlabel="evaluations", title="mean of the search distribution")
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/tune_svm.png", dpi=150)
    print("\nout/tune_svm.png: the search beside random points")


if __name__ == "__main__":
    main()
