"""Select what differs most between the models, weight each by its energy, erase minority signs."""

from __future__ import annotations

from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import KEEP_ALL, KEEP_NONE, Copy, MaskedSum, MaskRule, Program, SelectSpread, Spread, TaskMerge


def _program(inputs: Inputs) -> Program:
    assert inputs.base is not None
    models = inputs.models
    rule: MaskRule = KEEP_ALL
    if models and inputs.number("select_topk") < 1:
        (cut,) = yield SelectSpread(models, inputs.number("select_topk"))
        if cut == KEEP_NONE.cut:
            return Copy(inputs.base)
        rule = Spread(cut)
    rules = (rule,) * len(models)
    energies = [total.kept for total in (yield MaskedSum(models, rules, inputs.base, "l2"))] if models else []
    if sum(energies) == 0:
        return Copy(inputs.base)
    weights = tuple(energy / sum(energies) for energy in energies)
    return TaskMerge(inputs.base, models, rules, weights, "sum", weights, normalize=True, votes=(1.0,) * len(models))


METHOD = Method(
    name="sce",
    title="SCE: of the most varied elements the winning sign's mean, weighted by each model's energy",
    formula="D_i = X_i - B where its variance over i is among the largest, else 0; w_i = mean(D_i^2); "
    "s = sign(sum D_i); Y = B + sum(w_i D_i with sign s) / sum(w_i that took part)",
    reference="Wan et al. 2024, FuseChat, section 3.3",
    base=BaseRule.REQUIRED,
    minimum=0,
    parameters=(
        Parameter(
            "select_topk",
            float,
            "share of the elements that are not the same in all models: those that vary most are merged",
            default=1.0,
            minimum=0.0,
            maximum=1.0,
        ),
        Parameter("int8_mask", bool, "accepted for old recipes; changes nothing", default=False),
    ),
    program=_program,
)
