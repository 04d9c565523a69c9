"""`plan_moe`: a document and the headers of dense models -> every tensor of a mixture of them."""

from pymerge.plan.moe.planner import list_pending, plan_moe

__all__ = ["list_pending", "plan_moe"]
