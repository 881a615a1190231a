"""Faults put into a rule one by one, to see whether its tests would notice.

A mutant is the rule's source with one thing changed: a comparison, a constant, a boolean operator,
one of several conditions, a check that always holds, a call left out, one field taken for its
neighbour.  Whatever a check answers differently for any case kills it.
"""

from __future__ import annotations
import __future__

import ast
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
}
#: Names and fields that are easily taken for each other.
_NEIGHBOURS = (
    ("all", "any"),
    ("max", "min"),
    ("created", "quoted"),
    ("reset_count", "restart_count"),
    ("RH_ENDORSEMENT", "RH_NULL"),
    ("AK_TEMPLATE", "HOST_PARENT_TEMPLATE"),
    ("ATTEST_QUOTE", "ATTEST_CREATION"),
    ("public", "parent_public"),
    ("host_key", "parent"),
    ("creation_hash", "object_name"),
    ("pcr_digest", "extra_data"),
    ("parent_name", "parent_qualified_name"),
    ("P256", "P384"),
)
_SWAPS = dict(_NEIGHBOURS) | {b: a for a, b in _NEIGHBOURS}
#: Calls of the ledger whose words are for people; what follows the condition is not code.
_LEDGER = frozenset({"add", "skip"})

#: Changes one node of a copy of the tree in place.
_Edit = Callable[[ast.AST], None]
#: One way of looking at a module, by its names.
Look = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed function, class or constant; ``name`` is its place, source line and change."""

    name: str
    line: int
    code: CodeType


class Laboratory:
    """A module of its own making, in which one thing at a time is exchanged for a mutant.

    Of several modules it makes one: each is given before those that it imports, so that its names
    for what is in them are the laboratory's own.
    """

    def __init__(self, *modules: ModuleType) -> None:
        self._paths = [Path(str(module.__file__)) for module in modules]
        self._names: dict[str, object] = {"__name__": modules[0].__name__}
        for path in self._paths:
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), self._names)

    def mutants(self) -> Iterator[Mutant]:
        """Make every mutant of the modules, in order of their lines."""
        for path in self._paths:
            yield from self._mutants_of(path)

    def _mutants_of(self, path: Path) -> Iterator[Mutant]:
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for top in ast.parse(source).body:
            for place, at, node in _nodes(top):
                for what, edit in _edits(node):
                    changed = copy.deepcopy(top)
                    edit(next(n for number, n in enumerate(ast.walk(changed)) if number == at))
                    line = getattr(node, "lineno", 0)
                    text = " ".join(lines[line - 1].split())
                    # Annotations stay words, as the module's own first line has it.
                    flags = __future__.annotations.compiler_flag
                    whole = ast.fix_missing_locations(ast.Module([changed], []))
                    code = compile(whole, str(path), "exec", flags, dont_inherit=True)
                    yield Mutant(f"{place}: {text}: {what}", line, code)

    @contextmanager
    def holding(self, mutant: Mutant | None) -> Iterator[Mapping[str, Any]]:
        """Give the module's names with the mutant among them."""
        kept = dict(self._names)
        try:
            if mutant is not None:
                exec(mutant.code, self._names)
            yield self._names
        finally:
            self._names.clear()
            self._names.update(kept)

    def survivors(self, looks: Sequence[Look]) -> Iterator[Mutant]:
        """List the mutants that look like the module itself, however one looks at them."""
        with self.holding(None) as names:
            expected = [look(names) for look in looks]
        first = list(range(len(looks)))
        for mutant in self.mutants():
            killer = self._killer(mutant, [(n, looks[n], expected[n]) for n in first])
            if killer is None:
                yield mutant
            else:
                # What killed the last one is often what kills the next.
                first.remove(killer)
                first.insert(0, killer)

    def _killer(self, mutant: Mutant, looks: Sequence[tuple[int, Look, object]]) -> int | None:
        with self.holding(mutant) as names:
            for number, look, wanted in looks:
                try:
                    same = look(names) == wanted
                except Exception:  # noqa: BLE001 - whatever it raises, a test would show it
                    same = False
                if not same:
                    return number
        return None


def _nodes(top: ast.stmt) -> Iterator[tuple[str, int, ast.AST]]:
    """List the nodes of function bodies and constants, numbered as `ast.walk` meets them."""
    numbers = {id(node): number for number, node in enumerate(ast.walk(top))}
    words = {id(part) for node in ast.walk(top) for part in _words(node)}
    match top:
        case ast.Assign() | ast.AnnAssign():
            holders: list[tuple[str, list[ast.stmt]]] = [("module", [top])]
        case ast.ClassDef():
            holders = [(n.name, n.body) for n in top.body if isinstance(n, ast.FunctionDef)]
        case ast.FunctionDef():
            holders = [(top.name, top.body)]
        case _:
            holders = []
    for place, body in holders:
        for statement in body:
            for node in ast.walk(statement):
                if id(node) not in words:
                    yield place, numbers[id(node)], node


def _words(node: ast.AST) -> Iterator[ast.AST]:
    """List what is words for people or ids in a node: reasons, subjects, docstrings."""
    parts: list[ast.AST] = []
    match node:
        case ast.Call(func=ast.Attribute(attr=attr)) if attr in _LEDGER:
            parts = [node.args[0], *node.args[2 if attr == "add" else 1 :], *node.keywords]
        case ast.Call(func=ast.Attribute(attr="failing")) | ast.Call(func=ast.Name(id="cast")):
            parts = [node.args[0]]
        case ast.Call(func=ast.Name(id="Ledger")):
            parts = list(node.keywords)
        case ast.keyword(arg="subject"):
            parts = [node.value]
        case ast.Expr(value=ast.Constant()):
            parts = [node]
    for part in parts:
        yield from ast.walk(part)


def _edits(node: ast.AST) -> Iterator[tuple[str, _Edit]]:
    """Say what can be changed in one node itself."""
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            yield from _booleans(node)
        case ast.Constant():
            yield from _constants(node)
        case ast.IfExp() | ast.If():
            yield "always the first", _put("test", ast.Constant(value=True))
            yield "always the second", _put("test", ast.Constant(value=False))
        case ast.Expr(value=ast.Call()):
            yield "left out", _put("value", ast.Constant(value=None))
        case ast.Call():
            yield from _calls(node)
        case _:
            yield from _parts(node)


def _parts(node: ast.AST) -> Iterator[tuple[str, _Edit]]:
    match node:
        case ast.UnaryOp(op=ast.Not()):
            yield "not left out", _put("op", ast.UAdd())
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            other = _ARITHMETIC[type(op)]
            yield f"{other.__name__}", _put("op", other())
        case ast.Tuple(elts=elements) if len(elements) > 1:
            for index in range(len(elements)):
                yield f"without element {index}", _drop("elts", index)
        case ast.Name(id=own) if own in _SWAPS:
            yield f"{_SWAPS[own]} for {own}", _put("id", _SWAPS[own])
        case ast.Attribute(attr=own) if own in _SWAPS:
            yield f"{_SWAPS[own]} for {own}", _put("attr", _SWAPS[own])


def _comparisons(node: ast.Compare) -> Iterator[tuple[str, _Edit]]:
    for index, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            yield f"{other.__name__} for {type(op).__name__}", _at("ops", index, other())


def _booleans(node: ast.BoolOp) -> Iterator[tuple[str, _Edit]]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield type(other).__name__.lower(), _put("op", other)
    for index, value in enumerate(node.values):
        neutral = ast.Constant(value=isinstance(node.op, ast.And))
        yield f"without {ast.unparse(value)}", _at("values", index, neutral)


def _constants(node: ast.Constant) -> Iterator[tuple[str, _Edit]]:
    match node.value:
        case bool():
            yield f"{not node.value}", _put("value", not node.value)
        case int():
            yield f"{node.value + 1}", _put("value", node.value + 1)
            yield f"{node.value - 1}", _put("value", node.value - 1)
        case str():
            yield "another word", _put("value", node.value + "-")
        case bytes():
            yield "other bytes", _put("value", node.value + b"-")


def _calls(node: ast.Call) -> Iterator[tuple[str, _Edit]]:
    match node.func:
        case ast.Attribute(attr="add") if len(node.args) > 2:
            for value, what in ((True, "holds always"), (False, "holds never")):
                if not (isinstance(node.args[1], ast.Constant) and node.args[1].value is value):
                    yield what, _at("args", 1, ast.Constant(value=value))
        case ast.Name(id="compare_digest" | "is_endorsed" | "is_over" | "matches"):
            truth = ast.Constant(value=True)
            yield f"{ast.unparse(node)} is true", _become(truth)


def _put(field: str, value: object) -> _Edit:
    return lambda node: setattr(node, field, value)


def _at(field: str, index: int, value: object) -> _Edit:
    return lambda node: getattr(node, field).__setitem__(index, value)


def _drop(field: str, index: int) -> _Edit:
    return lambda node: getattr(node, field).__delitem__(index)


def _become(value: ast.Constant) -> _Edit:
    def edit(node: ast.AST) -> None:
        # In its place and without its parent at hand: a call that says so, whatever is asked.
        assert isinstance(node, ast.Call)
        node.func = ast.Lambda(
            args=ast.arguments(
                posonlyargs=[],
                args=[],
                vararg=ast.arg(arg="_"),
                kwonlyargs=[],
                kw_defaults=[],
                defaults=[],
            ),
            body=value,
        )

    return edit
