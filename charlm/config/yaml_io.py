"""YAML as configs use it: read within limits, and written so that it is read back equal.

A document may come from anywhere. It can only have mappings, lists, strings, numbers, booleans and
null, and it is refused while it is parsed if it is too deep or too large.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from charlm.config.shown import plain
from charlm.errors import ConfigError
from charlm.visible import visible

MAX_DEPTH = 20  # lists and mappings inside each other; a config has 4
MAX_VALUES = 50_000  # an alias counts as all that it stands for
MAX_DIGITS = 100  # characters of a number
_TAG = "tag:yaml.org,2002:"
_TYPES = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number, `on` and `off` are strings, and duplicate keys are errors."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes: dict[yaml.Node, int] = {}  # values in each complete node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and count its values."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark, is_alias = event.start_mark, isinstance(event, yaml.AliasEvent)
        before = self._values
        self._values += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(f"more than {MAX_DEPTH} lists and mappings inside each other", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        assert node is not None
        if not is_alias:
            self._sizes[node] = self._values - before
        elif node in self._sizes:
            self._values = before + self._sizes[node]
        else:
            raise _error("this alias is inside the value that it refers to", mark)
        if self._values > MAX_VALUES:
            raise _error(f"more than {MAX_VALUES:,} values, with aliases written out", mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, and check its keys."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":  # `<<: *base`
                continue
            if key.tag != f"{_TAG}str" or not isinstance(key, yaml.ScalarNode):
                what = f" {plain(key.value)}" if isinstance(key, yaml.ScalarNode) else ""
                raise _error(f"the key{what} is not a string", key.start_mark)
            if key.value in seen:
                raise _error(f"the key {plain(key.value)} is given twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; the errors of PyYAML's conversions get their position."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        type_ = node.tag.removeprefix(_TAG)
        if type_ in ("int", "float") and len(node.value) > MAX_DIGITS:
            raise _error(f"{plain(node.value)} is too long for a number", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, LookupError, ValueError) as error:  # `!!bool maybe`
            raise _error(f"{plain(node.value)} is not of type {type_}", node.start_mark) from error


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that this loader or YAML 1.1 would read as another type."""

    def represent_str(self, value: str) -> yaml.ScalarNode:
        """Line ends and characters that are not visible are escaped, which needs double quotes."""
        hidden = visible(value) != value
        return self.represent_scalar(f"{_TAG}str", value, style='"' if hidden else None)


_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.yaml_constructors = {  # no dates, sets or bytes; the key None is for unknown tags
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in _TYPES
}
_NUMBERS_AND_BOOLEANS = {  # YAML 1.2 core schema: 010 is not octal, 12:30 and `on` are strings
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "float": (
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
        "-+.0123456789",
    ),
}
_Loader.yaml_implicit_resolvers = {  # indexed by the first character
    letter: [pair for pair in pairs if pair[0].endswith((":null", ":merge"))]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _letters) in _NUMBERS_AND_BOOLEANS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_name}", _pattern, list(_letters))


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text.

    Args:
        where: name of the source, for the message.

    Raises:
        ConfigError: the text is not valid YAML, or exceeds a limit of this module; the message
            gives `where`, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except (ArithmeticError, ValueError) as error:  # the scanner calls chr() and int()
        raise ConfigError(
            f"{where}: not valid YAML: an escape or a directive has a number that is too large"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(_explained(error, where)) from error


# what to look at, for the mistakes that are made most
_ADVICE = {
    "could not find expected ':'": "write KEY: VALUE, with a space after the colon",
    "mapping values are not allowed here": "in this line and the one before, check the indentation "
    "and the space after the colon",
    "found character '\\t' that cannot start any token": "indent with spaces instead of tabs",
}


def _explained(error: yaml.YAMLError, where: str) -> str:
    """The line for a mistake in YAML."""
    mark = getattr(error, "problem_mark", None)
    if getattr(error, "context", "") == "while scanning a simple key":
        mark = getattr(error, "context_mark", None)  # the key, and not the place after it
    position = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    advice = f"; {_ADVICE[problem]}" if problem in _ADVICE else ""
    return f"{position}: not valid YAML: {problem:.200}{advice}"


def write_yaml(settings: Mapping[str, Any]) -> str:
    """Return nested dictionaries as YAML, with the keys in the given order, and all visible."""
    text = yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return visible(text, keep="\n")  # escapes only what is in double quotes
