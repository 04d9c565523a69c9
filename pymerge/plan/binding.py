"""Parameters bound to one tensor after the other, and the check for filters that match nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pymerge.config.resolve import resolve
from pymerge.config.values import Case, Cases, Input, MergeConfig, Scalar, Setting
from pymerge.errors import Location
from pymerge.methods.base import Inputs, Method, Parameter, Value
from pymerge.plan.assembly import Part
from pymerge.plan.findings import Findings
from pymerge.plan.parameters import convert_value, describe_owner, iterate_levels
from pymerge.plan.sources import Group

__all__ = ["Binder", "check_filters"]


@dataclass(slots=True)
class Binder:
    """Binds parameters, and remembers which filter entries decided and what was reported."""

    config: MergeConfig
    method: Method
    groups: Sequence[Group]
    seed: int
    findings: Findings
    matched: set[Case] = field(default_factory=set)
    reported: set[tuple[str, str, Location | None]] = field(default_factory=set)

    def bind(self, part: Part, present: Sequence[int], wide: bool) -> Inputs:
        """Return what the method's program is called with for `part`.

        Args:
            part: the output tensor.
            present: positions, within the part's group, of the sources that have the tensor; they
                become positions 0, 1, ... of the task.
        """
        group = self.groups[part.group]
        position = {source: place for place, source in enumerate(present)}
        models = [source for source in group.inputs if source in position]
        shared = (group.parameters, group.outer, self.config.parameters)
        values: dict[str, Value | None] = {}
        per_model: dict[str, tuple[Value | None, ...]] = {}
        for parameter in self.method.parameters:
            if parameter.per_model:
                per_model[parameter.name] = tuple(
                    self._find((entry.parameters, *shared), parameter, part.names[source], part.t, entry)
                    for source, entry in ((source, group.sources[source]) for source in models)
                )
            else:
                values[parameter.name] = self._find(shared, parameter, part.name, part.t, None)
        stored = part.inputs[present[0]]
        return Inputs(
            name=part.name,
            count=stored.count if stored else 0,
            base=None if group.base is None else position.get(group.base),
            models=tuple(position[source] for source in models),
            values=values,
            per_model=per_model,
            places=tuple(group.inputs.index(source) for source in models),
            seed=self.seed,
            wide=wide,
            shape=stored.shape if stored else (),
            layer=part.layer,
        )

    def _find(
        self, levels: Sequence[Mapping[str, Setting]], parameter: Parameter, name: str, t: float, source: Input | None
    ) -> Value | None:
        selected = parameter.kind is bool or bool(parameter.choices)
        found = resolve(levels, parameter.name, name, t, self.matched, selected=selected)
        if found is not None:
            try:
                return convert_value(parameter, found[0])
            except ValueError as error:
                self._report_value(parameter, found[0], found[1], source, error)
                return None
        if parameter.default is None or isinstance(parameter.default, (bool, int, float, str)):
            return parameter.default
        self._report_missing(levels, parameter, name, source)
        return None

    def _report_value(
        self, parameter: Parameter, value: Scalar, where: Location | None, source: Input | None, error: ValueError
    ) -> None:
        """Report what only the space between two entries of a gradient holds; entries are checked before."""
        if self.findings.fatal_at(where) or (parameter.name, describe_owner(source), where) in self.reported:
            return
        self.reported.add((parameter.name, describe_owner(source), where))
        self.findings.add(
            f"{self.method.name}: {parameter.name}{describe_owner(source)} {error}, but a gradient gives it {value}",
            where,
            "give one value, or filter entries",
        )

    def _report_missing(
        self, levels: Sequence[Mapping[str, Setting]], parameter: Parameter, name: str, source: Input | None
    ) -> None:
        where = source.model.where if source else self.config.method_where
        if (parameter.name, describe_owner(source), where) in self.reported:
            return
        self.reported.add((parameter.name, describe_owner(source), where))
        given = any(parameter.name in level for level in levels)
        self.findings.add(
            f"{self.method.name}: {parameter.name} is missing{describe_owner(source)}"
            + (f', no filter matches tensor "{name}"' if given else ""),
            where,
            f"add an entry without filter to {parameter.name}" if given else f"parameters: {{{parameter.name}: ...}}",
        )


def check_filters(binder: Binder, parts: Sequence[Part]) -> None:
    """Report filters that match no tensor (tolerable), and warn of entries that never decide."""
    known = {parameter.name: parameter for parameter in binder.method.parameters}
    for settings, source, is_base in iterate_levels(binder.config, binder.groups):
        for key, setting in settings.items():
            if not isinstance(setting.value, Cases) or key not in known or is_base:
                continue
            filtered = (case for case in setting.value.cases if case.filter not in (None, "*"))
            silent = [case for case in filtered if case not in binder.matched]
            if silent:
                _report_silent(binder, key, setting.value, silent, _find_names(binder, parts, settings, source))


def _find_names(
    binder: Binder, parts: Sequence[Part], settings: Mapping[str, Setting], source: Input | None
) -> set[str]:
    """Names of all tensors that a level of settings can apply to."""
    names: set[str] = set()
    for part in parts:
        group = binder.groups[part.group]
        if source is not None:
            names.update(name for name, entry in zip(part.names, group.sources, strict=True) if entry is source)
        elif any(settings is each for each in (binder.config.parameters, group.outer, group.parameters)):
            names.update((part.name, *part.names))
    return names


def _report_silent(binder: Binder, key: str, cases: Cases, silent: Sequence[Case], names: set[str]) -> None:
    for case in silent:
        matching = [name for name in names if str(case.filter) in name]
        if not matching:
            binder.findings.add(
                f'{binder.method.name}: the filter "{case.filter}" of {key} matches no tensor',
                case.where,
                "filters are pieces of tensor names, such as self_attn, mlp, lm_head; no wildcards",
                tolerable=True,
            )
        elif all(_decide(cases, name) is not case for name in matching):
            binder.findings.warn(
                f'{binder.method.name}: the filter "{case.filter}" of {key} never decides: entries before it '
                "match all of its tensors",
                case.where,
                "put narrower filters first",
            )


def _decide(cases: Cases, name: str) -> Case | None:
    return next((case for case in cases.cases if case.filter in (None, "*") or str(case.filter) in name), None)
