"""Not run but type-checked in strict mode: to its users the library is fully typed."""

from typing import assert_type

import jax
import optax

import optzoo
from optzoo import primitives
from optzoo.testing import Report, check_transformation


def use(params: dict[str, jax.Array], grads: dict[str, jax.Array]) -> Report:
    rules: list[optax.GradientTransformation] = [
        optzoo.adago(),
        optzoo.adamp(1e-3, weight_decay=1e-2),
        optzoo.sgdp(0.1, momentum=0.9),
        optzoo.ademamix(optax.cosine_decay_schedule(1e-3, 100), alpha_warmup=100),
        optzoo.diffgrad(),
        optzoo.dog(),
        optzoo.ldog(average_gamma=None),
        optzoo.grams(),
        optzoo.muon(axes=optzoo.torch_axes, include="head", scale="match_rms_adamw"),
        optzoo.novograd(),
        optzoo.ranger21(total_steps=100),
        optzoo.schedule_free_adamw(warmup_steps=10),
        optzoo.schedule_free_radam(),
        optzoo.schedule_free_sgd(),
        optzoo.schedule_free(optzoo.adamp(1e-2, b1=0.0), 1e-2),
        optzoo.master_weights(optzoo.stochastic_round(optzoo.grams(), 0)),
        optzoo.entropy_sgd(key="seed"),  # type: ignore[arg-type]
        optzoo.merge_leaves(primitives.take_sign, primitives.adam(), optzoo.gradient),
        optax.chain(optzoo.scale_by_muon(), optax.scale_by_learning_rate(0.1)),
        optzoo.get("muon").build(total_steps=100),
    ]
    tx = optax.chain(*rules)
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    evaluated = optzoo.eval_params(state, optax.apply_updates(params, updates))
    assert_type(evaluated, optax.Params)
    assert_type(optzoo.eval_params(state, params), dict[str, jax.Array])
    print(optzoo.describe(tx, evaluated), optzoo.matrix_labels(params))
    for name, entry in optzoo.REGISTRY.optimizers.items():
        print(name, entry.summary, entry.defaults)
    return check_transformation(optzoo.grams, params=params)
