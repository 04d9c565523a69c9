"""Which tensors are merged: `include` and `exclude` of a recipe."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pymerge.config.values import Filter, MergeConfig
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Group

__all__ = ["Scope"]


@dataclass(slots=True)
class Scope:
    """A tensor is merged if a filter of `include` is a part of its name (or there is none) and none of
    `exclude` is; else it stays as the base has it.
    """

    config: MergeConfig
    findings: Findings
    lacking: list[str] = field(default_factory=list)

    @property
    def _filters(self) -> tuple[Filter, ...]:
        return self.config.include + self.config.exclude

    def merges(self, name: str) -> bool:
        """Tell if the output tensor `name` is merged."""
        included = not self.config.include or any(entry.text in name for entry in self.config.include)
        return included and not any(entry.text in name for entry in self.config.exclude)

    def find_base(self, group: Group) -> int | None:
        """Position among a group's sources of the model whose tensors stay: the base model."""
        if group.base is not None:
            return group.base
        models = [entry.model for entry in group.sources]
        return models.index(self.config.base_model) if self.config.base_model in models else None

    def report(self, names: Collection[str]) -> None:
        """Report what cannot stay as it is, and filters that match none of the output tensors `names`."""
        for entry in self._filters:
            if not any(entry.text in name for name in names):
                self.findings.add(
                    f'the filter "{entry.text}" of include or exclude matches no tensor',
                    entry.where,
                    "a filter is a part of a tensor's name, without wildcards",
                    tolerable=True,
                )
        if not self.lacking:
            return
        where = self._filters[0].where
        if self.config.base_model is None:
            what = "what include and exclude leave out stays as base_model has it, and there is none"
            self.findings.add(what, where, "base_model: path/to/the/original/model")
        else:
            self.findings.add(
                f'"{self.config.base_model}" lacks {len(self.lacking)} of the tensors that include and exclude leave '
                f'out, "{self.lacking[0]}" among them',
                where,
                "narrow the filters, or list the base among the sources of each slice",
            )
