"""Published recipes plan against full-size stand-ins (right headers, no data)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import toys

from pymerge.config import load_recipe
from pymerge.errors import RecipeError
from pymerge.plan import MergePlan, count_costs, make_plan
from pymerge.plan.sources import list_references

RECIPES = Path(__file__).parent.parent / "recipes"

# Recipe, its document, layout of the models, layers of the output, lenient.
PUBLISHED = {
    "daredevil": ("daredevil-7b-dare-ties", 0, "mistral-7b", 32, False),
    "goliath": ("goliath-120b", 0, "llama2-70b", 137, False),
    "hekate": ("hekate-12b-model-stock", 0, "mistral-nemo-12b", 40, True),
    "holland": ("holland-magnum-4b-task-arithmetic", 0, "minitron-4b", 32, False),
    "llama3": ("llama3-120b-instruct", 0, "llama3-70b", 140, False),
    "marcoro14": ("marcoro14-7b-slerp", 0, "mistral-7b", 32, False),
    "megadolphin": ("megadolphin-120b", 0, "llama2-70b", 140, False),
    "neuralpipe ties": ("neuralpipe-7b-ties", 0, "mistral-7b", 32, False),
    "neuralpipe 9b": ("neuralpipe-9b-passthrough", 0, "mistral-7b", 40, False),
    "neuralsynthesis": ("neuralsynthesis-7b-model-stock", 0, "mistral-7b", 32, False),
    "solar one": ("nyxene-v1-11b-solar-layout", 0, "mistral-7b", 48, False),
    "solar two": ("nyxene-v1-11b-solar-layout", 1, "mistral-7b", 48, False),
    "nyxene": ("nyxene-v1-11b-solar-layout", 2, "mistral-7b", 48, True),
    "rocinante": ("rocinante-12b-passthrough-scale", 0, "mistral-nemo-12b", 63, False),
    "saul": ("saul-bio-dolphin-7b-breadcrumbs", 0, "mistral-7b", 32, False),
}


def plan_published(name: str, *, lenient: bool | None = None) -> MergePlan:
    """Write stand-ins for a recipe's models under the working directory, and plan it."""
    file, document, layout, layers, needs_lenient = PUBLISHED[name]
    text = (RECIPES / f"{file}.yml").read_text().split("\n---\n")[document]
    config = load_recipe(text + "\n")
    for ref in list_references(config):
        # The last stage of the SOLAR recipe merges two models that are 48 layers deep.
        toys.write_full_size(Path(ref.path), layout, layers=layers if ref.path.endswith("-11B") else None)
    return make_plan(config, lenient=needs_lenient if lenient is None else lenient)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe_plans_at_full_size(here: Path, name: str) -> None:
    layers = PUBLISHED[name][3]
    plan = plan_published(name)
    assert plan.layers == layers == plan.model_config["num_hidden_layers"]
    assert len(plan.tasks) == 9 * layers + 3
    assert [task.name for task in plan.tasks] == sorted(task.name for task in plan.tasks)
    costs = count_costs(plan)
    assert costs.written == sum(task.nbytes for task in plan.tasks)
    assert costs.copied + costs.merged == len(plan.tasks)


def test_goliath_takes_its_layers_from_where_the_card_says(here: Path) -> None:
    tasks = {task.name: task for task in plan_published("goliath").tasks}
    origins = []
    for layer in range(137):
        task = tasks[f"model.layers.{layer}.mlp.up_proj.weight"]
        origins.append((task.labels[0].split("/")[1], int(task.sources[0].name.split(".")[2])))
    xwin, euryale = "Xwin-LM-70B-V0.1", "Euryale-1.3-L2-70B"
    assert origins[:17] == [(xwin, layer) for layer in range(16)] + [(euryale, 8)]
    assert origins[31:33] == [(euryale, 23), (xwin, 17)]
    assert origins[-1] == (xwin, 79)
    assert tasks["lm_head.weight"].labels == tasks["model.embed_tokens.weight"].labels == ("Xwin-LM/" + xwin,)


def test_self_merge_repeats_the_inner_layers(here: Path) -> None:
    plan = plan_published("llama3")
    used = Counter(task.sources[0].name for task in plan.tasks if task.name.endswith("q_proj.weight"))
    assert [used[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in (9, 10, 69, 70)] == [1, 2, 2, 1]


def test_hekate_is_refused_unless_lenient(here: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_published("hekate", lenient=False)
    assert len(caught.value.problems) == 5
    assert all("model_stock does not read weight" in problem.message for problem in caught.value.problems)


def test_nyxene_is_refused_for_the_filter_that_matches_nothing(here: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_published("nyxene", lenient=False)
    (problem,) = caught.value.problems
    assert problem.message == 'slerp: the filter "modelnorm" of t matches no tensor'
    assert problem.where is not None
    assert problem.where.line == 22


def test_a_file_of_several_stages_plans_as_one_merge(here: Path) -> None:
    config = load_recipe(RECIPES / "nyxene-v1-11b-solar-layout.yml", lenient=True)
    for stage in config.stages:
        for ref in list_references(stage):
            toys.write_full_size(Path(ref.path), "mistral-7b")
    plan = make_plan(config, lenient=True)
    assert plan.layers == plan.model_config["num_hidden_layers"] == 48
    assert len(plan.models) == 4
    # What is stacked is read where it is stored.
    assert all(source.parts == () for task in plan.tasks for source in task.sources)


def test_marcoro_gradients_reach_their_ends(here: Path) -> None:
    tasks = {task.name: task for task in plan_published("marcoro14").tasks}

    def ratio(name: str) -> float:
        inputs = tasks[name].inputs
        assert inputs is not None
        return inputs.number("t")

    assert ratio("model.layers.0.self_attn.q_proj.weight") == 0.0
    assert ratio("model.layers.31.self_attn.q_proj.weight") == 1.0
    assert ratio("model.layers.0.mlp.up_proj.weight") == 1.0
    assert ratio("model.layers.31.mlp.up_proj.weight") == 0.0
    assert ratio("model.layers.5.input_layernorm.weight") == 0.5
    assert ratio("lm_head.weight") == 0.5


def test_rocinante_scales_only_what_its_filters_name(here: Path) -> None:
    tasks = {task.name: task for task in plan_published("rocinante").tasks}
    scales = {}
    for name in ("self_attn.o_proj", "mlp.down_proj", "mlp.up_proj"):
        inputs = tasks[f"model.layers.30.{name}.weight"].inputs
        assert inputs is not None
        scales[name] = inputs.per_model["scale"]
    assert scales == {"self_attn.o_proj": (0.5,), "mlp.down_proj": (0.5,), "mlp.up_proj": (1.0,)}


def test_hekate_keeps_bfloat16(here: Path) -> None:
    plan = plan_published("hekate")
    assert {task.dtype.name for task in plan.tasks} == {"bfloat16"}
    assert plan.model_config["torch_dtype"] == "bfloat16"
