"""Recipes that strangers could send: texts, written to a file as they are."""

from __future__ import annotations

from attacks.values import Attack, Layout

__all__ = ["RECIPES"]

GOOD = "merge_method: linear\nmodels: [{model: good}]\n"


def text(content: str | bytes) -> Layout:
    """A recipe's file of this content."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def added(content: str) -> Layout:
    """A good recipe with more lines."""
    return text(GOOD + content + "\n")


def weighed(value: str) -> Layout:
    """A good recipe with this weight."""
    return added(f"parameters: {{weight: {value}}}")


def model(name: str) -> Layout:
    """A recipe of this one model."""
    return text(f"merge_method: linear\nmodels: [{{model: {name}}}]\n")


def laughs() -> str:
    """Ten lists of ten of the one before: 10^10 values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return "\n".join(lines)


def merged_laughs() -> str:
    """The same with mappings that are merged."""
    lines = ["a0: &a0 {x: 1, y: 2, z: 3}"]
    lines += [f"a{i}: &a{i} {{'<<': [{','.join([f'*a{i - 1}'] * 10)}], k{i}: 1}}" for i in range(1, 10)]
    return "\n".join(lines).replace("'<<'", "<<")


def many_merged() -> str:
    """One mapping that twenty thousand others are merged into: copying it for each would take minutes."""
    return "parameters: {<<: [" + ",".join(f"{{k{i}: 1}}" for i in range(20_000)) + "]}"


TOO_MANY = "expand to more than 100000 values"
TOO_DEEP = "nested too deeply"

RECIPES: dict[str, Attack] = {
    "laughs": Attack(added(laughs()), 2, TOO_MANY, alone=True),
    "merged laughs": Attack(added(merged_laughs()), 2, TOO_MANY, alone=True),
    "many merged": Attack(added(many_merged()), 2, "k19999", alone=True),
    "a list of itself": Attack(added("name: &a [*a]"), 2, TOO_MANY),
    "a mapping merged into itself": Attack(added("parameters: &a {<<: *a}"), 2, TOO_MANY),
    "deep lists": Attack(text("[" * 10**6), 2, TOO_DEEP, alone=True),
    "deep mappings": Attack(text("{a: " * 10**6), 2, TOO_DEEP, alone=True),
    "deep blocks": Attack(text("".join(" " * i + "a:\n" for i in range(2000))), 2, TOO_DEEP),
    "deep dashes": Attack(text("- " * 10**5 + "a"), 2, TOO_DEEP, alone=True),
    "four million values": Attack(text("[" + "a," * (4 << 20) + "]"), 2, "too large for a recipe", alone=True),
    "two million values": Attack(text("[" + "a," * (2 << 20) + "]"), 2, "more than 100000 values", alone=True),
    "a million documents": Attack(text("--- a\n" * 10**6), 2, "more than 100000 values", alone=True),
    "forty thousand unknown keys": Attack(added("\n".join(f"k{i}: 1" for i in range(40_000))), 2, "k1", alone=True),
    "one long key": Attack(added("x" * 1000 + ": 1"), 2, "unknown key"),
    "nine megabytes": Attack(text("#" * (9 << 20)), 2, "too large for a recipe"),
    # Numbers.
    "ten thousand digits": Attack(weighed("9" * 10_000), 2, "a number of 10000 characters"),
    "ten thousand hexadecimal digits": Attack(weighed("0x" + "f" * 10_000), 2, "a number of 10002 characters"),
    "a million digits in base 60": Attack(weighed("1" + ":1" * 10**6), 2, "a number of 2000001 characters", alone=True),
    "a fraction in base 60": Attack(weighed("1" + ":1" * 400 + ".5"), 2, "a number of 803 characters"),
    "digits in quotes": Attack(weighed('"' + "9" * 10**6 + '"'), 2, "weight", alone=True),
    "infinity": Attack(weighed(".inf"), 2, "weight"),
    "too large a number": Attack(weighed("1e999"), 2, "weight"),
    "no number": Attack(weighed(".nan"), 2, "weight"),
    "an empty integer": Attack(weighed("!!int ''"), 2, "is not a int"),
    "an empty fraction": Attack(weighed("!!float ''"), 2, "is not a float"),
    "a quintillion layers": Attack(
        text("merge_method: passthrough\nslices: [{sources: [{model: good, layer_range: [0, 1" + "0" * 18 + "]}]}]\n"),
        2, "layer", alone=True,
    ),
    # Programs, and text that is none.
    "a call": Attack(added('name: !!python/object/apply:os.mkdir ["planted"]'), 2, "apply:os.mkdir is not"),
    "a module": Attack(added("name: !!python/module:os ''"), 2, "is not allowed"),
    "bytes": Attack(added("name: !!binary aGVsbG8="), 2, "is not allowed"),
    "a zero byte": Attack(added("name: a\0b"), 2, "not valid YAML"),
    "not UTF-8": Attack(text(b"merge_method: \xff\n"), 2, "not a text file in UTF-8"),
    "UTF-16": Attack(text(GOOD.encode("utf-16")), 2, "not a text file in UTF-8"),
    "half a character": Attack(model('"\\ud800"'), 2, "not valid YAML"),
    # Names.
    **{
        f"method {name}": Attack(
            text(f"merge_method: {name}\nmodels: [{{model: good}}]\n"), 2, "there is no merge method"
        )
        for name in ("../../evil", "_example", "base", "os", '"linear\\0"')
    },
    "a device as a model": Attack(model("/dev/zero"), 2, "is a file"),
    "the environment as a model": Attack(model("/proc/self/environ"), 2, "is a file"),
    "an address as a model": Attack(model("https://example.com/model"), 2, "there is no such folder"),
    "a hub's name as a model": Attack(model("owner/name"), 2, "HF_HUB_OFFLINE forbids to fetch it"),
    "escapes in a name": Attack(model('"\\e[2J\\a\\nerror: none"'), 2, '"\\u001b[2J\\u0007\\u000aerror: none"'),
    "escapes in a key": Attack(added('"\\e[2J\\u202e": 1'), 2, 'unknown key "\\u001b[2J\\u202e"'),
    "escapes in a method": Attack(text('merge_method: "\\x9b2J"\nmodels: [{model: good}]\n'), 2, '"\\u009b2J"'),
}  # fmt: skip
