"""Arithmetic expressions between parameters, as data: parsed once, then evaluated inside JAX.

An expression is a nested tuple, hence hashable, hence part of what a compiled fit is keyed by.
Names are matched against the known parameters first, so a name may hold any characters.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ifujax.errors import UsageError, unknown

_OPERATORS: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_FUNCTIONS = {"sqrt": jnp.sqrt, "exp": jnp.exp, "log": jnp.log, "abs": jnp.abs, "min": jnp.minimum, "max": jnp.maximum}
_ARITY = {"min": 2, "max": 2}


@dataclass(frozen=True)
class Expression:
    """A parsed expression. `tree` is ``("number", v)``, ``("name", n)`` or ``(operator, *arguments)``."""

    text: str
    tree: tuple

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters it depends on, each once, in order of appearance."""
        found: dict[str, None] = {}

        def visit(node: tuple) -> None:
            if node[0] == "name":
                found[node[1]] = None
            elif node[0] != "number":
                for child in node[1:]:
                    visit(child)

        visit(self.tree)
        return tuple(found)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Evaluate with the parameters' values (arrays or numbers)."""
        return _evaluate(self.tree, values)

    def affine(self) -> tuple[dict[str, float], float] | None:
        """Return ``({name: coefficient}, constant)`` where the expression is affine, else None."""
        return _affine(self.tree)


def parse(text: str, known: Iterable[str], *, where: str = "expression") -> Expression:
    """Parse arithmetic of the `known` parameter names.

    Parameters
    ----------
    text : str
        Numbers, names, ``+ - * / **``, parentheses, ``sqrt exp log abs min max``.
    known : iterable of str
        Names that may occur.
    where : str
        What the message calls this expression (a section and option, say).

    Raises
    ------
    UsageError
        For a name that is not known (the nearest is suggested) or anything that is not arithmetic.
    """
    known = list(known)
    placeholders: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        key = f"_p{len(placeholders)}_"
        placeholders[key] = match.group(0)
        return key

    pattern = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    source = re.sub(rf"(?<![\w.])(?:{pattern})(?![\w.])", stand_in, text) if pattern else text
    try:
        body = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(f"{where} must be arithmetic of parameter names and numbers; got {text!r}.") from None
    return Expression(text.strip(), _convert(body, placeholders, known, text, where))


def _convert(node: ast.AST, placeholders: Mapping[str, str], known: list[str], text: str, where: str) -> tuple:
    def recurse(child: ast.AST) -> tuple:
        return _convert(child, placeholders, known, text, where)

    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return ("number", float(node.value))
    if isinstance(node, ast.Name) and node.id in placeholders:
        return ("name", placeholders[node.id])
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return (_OPERATORS[type(node.op)], recurse(node.left), recurse(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        inner = recurse(node.operand)
        return ("*", ("number", -1.0), inner) if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id in _FUNCTIONS and len(node.args) == _ARITY.get(node.func.id, 1):
            return (node.func.id, *(recurse(child) for child in node.args))
        raise UsageError(f"{where} calls an {unknown('function', node.func.id, _FUNCTIONS)} (in {text!r})")
    if isinstance(node, (ast.Name, ast.Attribute)):
        name = ast.unparse(node)
        for key, original in placeholders.items():
            name = name.replace(key, original)
        raise UsageError(f"{where} names an {unknown('parameter', name, known)}")
    raise UsageError(f"{where} must be arithmetic of parameter names and numbers; got {text!r}.")


def _evaluate(node: tuple, values: Mapping[str, Any]) -> Any:
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "name":
        return values[node[1]]
    arguments = [_evaluate(child, values) for child in node[1:]]
    if kind == "+":
        return arguments[0] + arguments[1]
    if kind == "-":
        return arguments[0] - arguments[1]
    if kind == "*":
        return arguments[0] * arguments[1]
    if kind == "/":
        return arguments[0] / arguments[1]
    if kind == "**":
        return arguments[0] ** arguments[1]
    return _FUNCTIONS[kind](*arguments)


def _affine(node: tuple) -> tuple[dict[str, float], float] | None:
    kind = node[0]
    if kind == "number":
        return {}, node[1]
    if kind == "name":
        return {node[1]: 1.0}, 0.0
    parts = [_affine(child) for child in node[1:]]
    if any(part is None for part in parts) or kind not in "+-*/":
        return None
    (left, a), (right, b) = parts[0], parts[1]  # type: ignore[misc]
    if kind in "+-":
        sign = 1.0 if kind == "+" else -1.0
        merged = dict(left)
        for name, factor in right.items():
            merged[name] = merged.get(name, 0.0) + sign * factor
        return merged, a + sign * b
    if kind == "*":
        if left and right:
            return None
        factor, (names, constant) = (a, (right, b)) if not left else (b, (left, a))
        return {name: factor * value for name, value in names.items()}, factor * constant
    if right or b == 0:
        return None
    return {name: value / b for name, value in left.items()}, a / b


def dependency_order(depends: Mapping[str, Iterable[str]], where: Mapping[str, str] | None = None) -> list[str]:
    """Order names so that each comes after those it depends on.

    Raises
    ------
    UsageError
        For a cycle; the message spells it out.
    """
    order: list[str] = []
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        if state.get(name) == 1:
            cycle = " -> ".join((*trail[trail.index(name) :], name))
            place = f" (at {where[name]})" if where and name in where else ""
            raise UsageError(f"constraints must not form a cycle; got {cycle}{place}. Remove one of these ties.")
        state[name] = 1
        for other in depends.get(name, ()):
            visit(other, (*trail, name))
        state[name] = 2
        order.append(name)

    for name in depends:
        visit(name, ())
    return order
