"""A reader of the few JSON Schema words (draft 2020-12) that the OMS schemas use.

A word it does not know is an error, so that no rule of a schema is passed over in silence.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_SILENT = {"$schema", "$id", "$defs", "title", "description", "then"}


class Schemas:
    """The schemas of a directory, which refer to each other by ``$id``."""

    def __init__(self, folder: Path) -> None:
        self._known = {
            schema["$id"]: schema
            for schema in (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
        }

    def faults(self, name: str, document: Any) -> list[str]:
        """List where ``document`` breaks the schema ``https://model_signing/NAME/v1.0/schema``."""
        root = self._known[f"https://model_signing/{name}/v1.0/schema"]
        return list(self._check(document, root, root, "$"))

    def _check(self, value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> Any:
        for word, rule in schema.items():
            if word not in _SILENT:
                yield from getattr(self, f"_{word.lstrip('$')}")(value, rule, schema, root, at)

    def _ref(self, value: Any, rule: str, _s: Any, root: Any, at: str) -> Any:
        if rule.startswith("#/$defs/"):
            yield from self._check(value, root["$defs"][rule.removeprefix("#/$defs/")], root, at)
        else:
            yield from self._check(value, self._known[rule], self._known[rule], at)

    def _type(self, value: Any, rule: Any, _s: Any, _r: Any, at: str) -> Any:
        wanted = [t for name in ([rule] if isinstance(rule, str) else rule) for t in _TYPES[name]]
        if type(value) not in wanted:
            yield f"{at}: not of type {rule}"

    def _required(self, value: Any, rule: list[str], _s: Any, _r: Any, at: str) -> Any:
        if isinstance(value, dict):
            yield from (f"{at}: lacks {name}" for name in rule if name not in value)

    def _properties(self, value: Any, rule: dict[str, Any], _s: Any, root: Any, at: str) -> Any:
        if isinstance(value, dict):
            for name in rule.keys() & value.keys():
                yield from self._check(value[name], rule[name], root, f"{at}.{name}")

    def _additionalProperties(self, value: Any, rule: Any, schema: Any, root: Any, at: str) -> Any:  # noqa: N802
        if isinstance(value, dict) and rule is not True:
            for name in value.keys() - schema.get("properties", {}).keys():
                if rule is False:
                    yield f"{at}: {name} does not belong"
                else:
                    yield from self._check(value[name], rule, root, f"{at}.{name}")

    def _items(self, value: Any, rule: Any, _s: Any, root: Any, at: str) -> Any:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._check(item, rule, root, f"{at}[{index}]")

    def _anyOf(self, value: Any, rule: list[Any], _s: Any, root: Any, at: str) -> Any:  # noqa: N802
        if all(list(self._check(value, schema, root, at)) for schema in rule):
            yield f"{at}: none of the alternatives"

    def _if(self, value: Any, rule: Any, schema: Any, root: Any, at: str) -> Any:
        if not list(self._check(value, rule, root, at)):
            yield from self._check(value, schema["then"], root, at)

    def _const(self, value: Any, rule: Any, _s: Any, _r: Any, at: str) -> Any:
        if value != rule:
            yield f"{at}: not {rule!r}"

    def _enum(self, value: Any, rule: list[Any], _s: Any, _r: Any, at: str) -> Any:
        if value not in rule:
            yield f"{at}: not one of {rule}"

    def _pattern(self, value: Any, rule: str, _s: Any, _r: Any, at: str) -> Any:
        if isinstance(value, str) and not re.search(rule, value):
            yield f"{at}: does not match {rule}"

    def _exclusiveMinimum(self, value: Any, rule: int, _s: Any, _r: Any, at: str) -> Any:  # noqa: N802
        if isinstance(value, int) and value <= rule:
            yield f"{at}: not above {rule}"

    def _minLength(self, value: Any, rule: int, _s: Any, _r: Any, at: str) -> Any:  # noqa: N802
        if isinstance(value, str) and len(value) < rule:
            yield f"{at}: shorter than {rule}"

    def _minItems(self, value: Any, rule: int, _s: Any, _r: Any, at: str) -> Any:  # noqa: N802
        if isinstance(value, list) and len(value) < rule:
            yield f"{at}: fewer than {rule} items"

    def _maxItems(self, value: Any, rule: int, _s: Any, _r: Any, at: str) -> Any:  # noqa: N802
        if isinstance(value, list) and len(value) > rule:
            yield f"{at}: more than {rule} items"

    def _minProperties(self, value: Any, rule: int, _s: Any, _r: Any, at: str) -> Any:  # noqa: N802
        if isinstance(value, dict) and len(value) < rule:
            yield f"{at}: fewer than {rule} fields"
