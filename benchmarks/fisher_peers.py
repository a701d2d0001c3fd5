"""The curvature of a case of fisher_cases.py, in other libraries.

Each peer is a function (case, what, kind) ↦ a call that computes it, or None where the
library has no such thing; `what` is "gradient", "product", "dense", "diagonal" or
"kronecker", `kind` "true" or "empirical". What a library needs only once for a network,
such as its traces and modules, is made before and is not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from fisher_cases import Case, mlp

Call = Callable[[], Any]
Peer = Callable[[Case, str, str], Call | None]


def kfac_jax(case: Case, what: str, kind: str) -> Call | None:
    import kfac_jax as k

    if what == "gradient":
        return None

    def loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = batch
        logits = mlp(params, x)
        k.register_softmax_cross_entropy_loss(logits, y)
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_probs, y[:, None], 1).mean()

    batch = case.x, case.y
    if what == "product":
        if kind != "true":
            return None
        implicit = k.ImplicitExactCurvature(loss)
        product = jax.jit(lambda p, b, v: implicit.multiply_fisher((p, b), v))
        return lambda: product(case.params, batch, case.v)
    mode = {"true": "fisher_exact", "empirical": "fisher_empirical"}[kind]
    if what == "dense":
        curvature = k.ExplicitExactCurvature(loss, default_estimation_mode=mode)
    else:
        block = {"diagonal": k.DenseDiagonal, "kronecker": k.DenseTwoKroneckerFactored}
        curvature = k.BlockDiagonalCurvature(
            loss,
            default_estimation_mode=mode,
            layer_tag_to_block_ctor={"dense": block[what]},
        )
    key = jax.random.PRNGKey(0)
    state = curvature.init(key, (case.params, batch), None, None)

    @jax.jit
    def estimate(state: Any, params: Any, batch: Any) -> Any:
        return curvature.update_curvature_matrix_estimate(
            state, 0.0, 1.0, 0.0, len(case.x), key, (params, batch)
        )

    return lambda: estimate(state, case.params, batch)


def _torch(case: Case) -> tuple[Any, Any, Any]:
    """The same network and data."""
    import torch

    torch.set_num_threads(2)
    layers: list[Any] = []
    for given in case.params:
        layer = torch.nn.Linear(*given["w"].shape)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(np.asarray(given["w"]).T))
            layer.bias.copy_(torch.tensor(np.asarray(given["b"])))
        layers += [layer, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    x, y = (torch.tensor(np.asarray(part)) for part in (case.x, case.y))
    return model, x, y.long()


def torch(case: Case, what: str, kind: str) -> Call | None:
    """Its gradient alone, the measure of the libraries built on it."""
    if what != "gradient":
        return None
    from torch import autograd, nn

    model, x, y = _torch(case)
    params = list(model.parameters())
    return lambda: autograd.grad(nn.functional.cross_entropy(model(x), y), params)


def curvlinops(case: Case, what: str, kind: str) -> Call | None:
    import curvlinops as c
    from torch import eye, nn, randn

    model, x, y = _torch(case)
    params, loss, data = list(model.parameters()), nn.CrossEntropyLoss(), [(x, y)]
    options: dict[str, Any] = {"check_deterministic": False, "num_data": len(x)}
    exact = c.GGNLinearOperator if kind == "true" else c.EFLinearOperator
    if what == "product":
        operator, v = exact(model, loss, params, data, **options), randn(case.size)
        return lambda: operator @ v
    if what == "dense":
        operator, unit = exact(model, loss, params, data, **options), eye(case.size)
        return lambda: operator @ unit
    if what != "kronecker":
        return None
    fisher_type = c.FisherType.TYPE2 if kind == "true" else c.FisherType.EMPIRICAL

    def factors() -> Any:
        operator = c.KFACLinearOperator(
            model,
            loss,
            params,
            data,
            fisher_type=fisher_type,
            separate_weight_and_bias=False,
            num_per_example_loss_terms=1,
            **options,
        )
        operator.compute_kronecker_factors()
        return operator

    return factors


def nngeometry(case: Case, what: str, kind: str) -> Call | None:
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object import PMatDense, PMatDiag, PMatImplicit, PMatKFAC, PVector
    from torch import randn
    from torch.utils.data import DataLoader, TensorDataset

    if kind != "true" or what == "gradient":
        return None
    model, x, y = _torch(case)
    loader = DataLoader(TensorDataset(x, y), batch_size=len(x))
    form = {
        "product": PMatImplicit,
        "dense": PMatDense,
        "diagonal": PMatDiag,
        "kronecker": PMatKFAC,
    }[what]

    def matrix() -> Any:
        return FIM(model, loader, form, "classif_logits", device="cpu")

    if what != "product":
        return matrix
    implicit = matrix()
    v = PVector(LayerCollection.from_model(model), vector_repr=randn(case.size))
    return lambda: implicit.mv(v)


def asdl(case: Case, what: str, kind: str) -> Call | None:
    import asdl as a
    from torch.nn.functional import cross_entropy

    shapes = {
        "dense": a.SHAPE_FULL,
        "diagonal": a.SHAPE_DIAG,
        "kronecker": a.SHAPE_KRON,
    }
    if what not in shapes:
        # Its products hold the gradients of all examples: N × P numbers.
        return None
    model, x, y = _torch(case)
    config = a.FisherConfig(
        a.FISHER_EXACT if kind == "true" else a.FISHER_EMP,
        shapes[what],
        loss_type=a.LOSS_CROSS_ENTROPY,
        data_size=len(x),
    )
    maker = a.get_fisher_maker(model, config)
    logits = maker.setup_model_call(model, x)
    maker.setup_loss_call(cross_entropy, logits, y)
    maker.setup_logits_repr(logits)
    return maker.forward_and_backward


PEERS: dict[str, Peer] = {
    "kfac-jax": kfac_jax,
    "torch": torch,
    "curvlinops": curvlinops,
    "nngeometry": nngeometry,
    "asdl": asdl,
}
