"""What can stand in the place of an expression: another operator, number, condition, function."""

import ast
import copy
from collections.abc import Iterator

OPERATORS: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Div],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}
_PAIRS = [
    ("min", "max"),
    ("any", "all"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("floor", "ceil"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
]
NAMES = dict(_PAIRS) | {b: a for a, b in _PAIRS}
# Functions of one argument that are left out: f(x) becomes x.
DROPPED = {"abs", "sqrt", "exp", "log", "copy", "reversed", "sorted"}


def replaced(node: ast.expr) -> Iterator[ast.expr]:
    """What can stand in the place of an expression."""
    match node:
        case ast.BinOp() | ast.BoolOp():
            for operator in OPERATORS.get(type(node.op), []):
                yield _with(node, op=operator())
        case ast.Compare():
            for i, old in enumerate(node.ops):
                rest = node.ops[i + 1 :]
                yield from (
                    _with(node, ops=[*node.ops[:i], new(), *rest]) for new in OPERATORS[type(old)]
                )
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=float(value)) if abs(value) > 1000:  # where 1 is nothing
            yield from (ast.Constant(value * factor) for factor in (10, 0.1))
        case ast.Constant(value=int(value) | float(value)):
            yield from (ast.Constant(value + step) for step in (1, -1))
        case ast.Call():
            yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    """Another function, or none."""
    match node.func:
        case ast.Name(id=name):
            field = "id"
        case ast.Attribute(attr=name, value=value):
            field = "attr"
            if name == "copy" and not node.args:
                yield value
        case _:
            return
    if name in NAMES:
        yield _with(node, func=_with(node.func, **{field: NAMES[name]}))
    if name in DROPPED and len(node.args) == 1 and not node.keywords:
        yield node.args[0]


def _with(node: ast.expr, **fields: object) -> ast.expr:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new
