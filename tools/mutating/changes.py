"""Small changes of Python code, each a fault that tests should see.

Left out are changes that any run would trip over (None for an argument, a name that does not
exist): they say nothing of what tests assert. So is what never runs or is only told to people:
annotations, type aliases, decorators, docstrings, strings, assertions (``strict`` of zip is one),
messages of errors. So is what is equal by design: into how many parts work is cut for threads (the
results do not depend on it, which has tests of its own), and which negative number stands in a
reshape.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

from mutating.replacements import OPERATORS, replaced


@dataclass(frozen=True)
class Change:
    """One change of a module.

    Attributes:
        start: where the code that is replaced begins, in bytes of the source.
        end: where it ends.
        text: what stands there instead.
        line: its first line.
        lines: lines of the statement around it (of its head, if it has a body).
        called: whether it is in a function that Python runs, so that coverage knows who reaches it.
        told: before and after, for people.
    """

    start: int
    end: int
    text: str
    line: int
    lines: range
    called: bool
    told: str

    def made(self, source: bytes) -> bytes:
        """The source with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def changes(source: bytes) -> list[Change]:
    """All changes of a module that compile, in the order of their places."""
    finder = _Finder(source)
    finder.body(ast.parse(source).body, called=False)
    return sorted(finder.found, key=lambda change: (change.start, change.end, change.text))


class _Finder:
    def __init__(self, source: bytes) -> None:
        self.found: list[Change] = []
        lines = source.splitlines(keepends=True)
        self.offsets = [0, *(sum(map(len, lines[: i + 1])) for i in range(len(lines)))]

    def body(self, statements: list[ast.stmt], *, called: bool) -> None:
        for statement in statements:
            self.statement(statement, called=called)

    def statement(self, node: ast.stmt, *, called: bool) -> None:
        if isinstance(node, ast.FunctionDef):
            for default in _defaults(node.args):
                self.expression(default, _head(node), called=called)
            kernel = any("compiled" in ast.unparse(each) for each in node.decorator_list)
            self.body(node.body, called=not kernel)
        elif isinstance(node, ast.ClassDef):
            self.body(node.body, called=False)
        else:
            if _removable(node):
                self.add(node, "pass", _head(node), called, f"`{_short(node)}` removed")
            if not _idle(node):
                self.head(node, _head(node), called=called)
            for block in ("body", "orelse", "finalbody"):
                self.body(getattr(node, block, []), called=called)
            for handler in getattr(node, "handlers", []):
                self.body(handler.body, called=called)

    def head(self, node: ast.stmt, lines: range, *, called: bool) -> None:
        """What a statement says itself, without the statements in it."""
        for part in ast.iter_child_nodes(node):
            if part is not getattr(node, "annotation", None):
                for inner in _expressions(part):
                    self.expression(inner, lines, called=called)
        if isinstance(node, ast.If | ast.While):
            self.negated(node.test, lines, called)
        if isinstance(node, ast.AugAssign):
            self.operators(node, lines, called)

    def expression(self, top: ast.expr, lines: range, *, called: bool) -> None:
        if _alike(top):
            return
        for new in replaced(top):
            self.add(top, f"({ast.unparse(new)})", lines, called, _told(top, new))
        if isinstance(top, ast.IfExp):
            self.negated(top.test, lines, called)
        for part in _parts(top):
            for inner in _expressions(part):
                self.expression(inner, lines, called=called)
            if isinstance(part, ast.comprehension):
                for condition in part.ifs:
                    self.negated(condition, lines, called)

    def negated(self, test: ast.expr, lines: range, called: bool) -> None:
        """A condition turned round, where no other change does that."""
        single = isinstance(test, ast.Compare) and len(test.ops) == 1
        if not single and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            new = ast.UnaryOp(ast.Not(), test)
            self.add(test, f"({ast.unparse(new)})", lines, called, _told(test, new))

    def operators(self, node: ast.AugAssign, lines: range, called: bool) -> None:
        for operator in OPERATORS.get(type(node.op), []):
            new = copy.copy(node)
            new.op = operator()  # type: ignore[assignment]
            self.add(node, ast.unparse(new), lines, called, _told(node, new))

    def add(
        self, node: ast.stmt | ast.expr, text: str, lines: range, called: bool, told: str
    ) -> None:
        start = self.offsets[node.lineno - 1] + node.col_offset
        end = self.offsets[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        self.found.append(Change(start, end, text, node.lineno, lines, called, told))


def _removable(node: ast.stmt) -> bool:
    """Whether the code runs on without a statement."""
    if isinstance(node, ast.Assign):
        return not any(isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    return isinstance(node, ast.AugAssign | ast.Raise | ast.Break | ast.Continue)


def _idle(node: ast.stmt) -> bool:
    """Statements in which nothing is changed."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name == "__all__" or (name[0].isupper() and not name.isupper())  # a type's name
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom)


def _defaults(given: ast.arguments) -> Iterator[ast.expr]:
    """Values of arguments that are not given, but for the number of threads."""
    places = [*given.posonlyargs, *given.args]
    pairs = zip(places[len(places) - len(given.defaults) :], given.defaults, strict=True)
    for argument, value in [*pairs, *zip(given.kwonlyargs, given.kw_defaults, strict=True)]:
        if value is not None and argument.arg != "threads":
            yield value


def _alike(node: ast.expr) -> bool:
    """Expressions of which every change is one of words, or equal by design."""
    match node:
        case ast.JoinedStr():
            return True
        case ast.BinOp() | ast.Call(func=ast.Name(id="min" | "max")):
            return any(isinstance(n, ast.Name) and n.id == "threads" for n in ast.walk(node))
    return False


def _parts(node: ast.expr) -> Iterator[ast.AST]:
    """What an expression is made of and can be changed."""
    for part in ast.iter_child_nodes(node):
        strict = isinstance(part, ast.keyword) and part.arg == "strict"
        shaping = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("reshape")
        if not strict and not (shaping and isinstance(part, ast.UnaryOp)):
            yield part


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """An expression, or those right below what is none itself: a keyword, a loop, a `with`."""
    if isinstance(node, ast.expr):
        yield node
    elif not isinstance(node, ast.stmt | ast.ExceptHandler):
        for part in ast.iter_child_nodes(node):
            yield from _expressions(part)


def _head(node: ast.stmt) -> range:
    """Lines of a statement, without those of the statements in it."""
    inner: list[ast.stmt] = getattr(node, "body", [])
    end = inner[0].lineno if inner else (node.end_lineno or node.lineno) + 1
    return range(node.lineno, max(end, node.lineno + 1))


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:69] + "…"


def _told(old: ast.AST, new: ast.AST) -> str:
    return f"`{_short(old)}` → `{_short(new)}`"
