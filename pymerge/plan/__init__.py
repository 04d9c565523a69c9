"""Plans: every output tensor of a merge, decided before a weight is read."""

from pymerge.plan.costs import Costs, Trace, count_costs, trace_task
from pymerge.plan.planner import make_plan
from pymerge.plan.values import MergePlan, TensorTask

__all__ = ["Costs", "MergePlan", "TensorTask", "Trace", "count_costs", "make_plan", "trace_task"]
