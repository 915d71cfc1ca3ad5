"""Calico's label selectors: parsed once into a frozen tree, then asked about labels as often as wanted.

`role == 'router' && !has(spare) || rack in {'a', 'b'}`: && binds closer than ||, and what a label that is missing
says is what Calico says of it: `!=` and `not in` hold, everything else does not.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, assert_never

DEEPEST = 50
"""Parentheses in each other; nobody writes more, and a machine that does should not find the end of our stack."""

NAMESPACE = "projectcalico.org/namespace"
"""The label that Calico gives to whatever lies in a namespace; `global()` asks for its absence."""


class SelectorError(ValueError):
    """A selector that cannot be read: where it goes wrong, and what would be right there."""


# --- the tree

Comparison: TypeAlias = Literal["==", "contains", "starts with", "ends with"]


@dataclass(frozen=True, slots=True)
class Has:
    """The label is there."""

    label: str


@dataclass(frozen=True, slots=True)
class Is:
    """The label is there, and its value compares so."""

    label: str
    how: Comparison
    value: str


@dataclass(frozen=True, slots=True)
class In:
    """The label is there, and has one of these values."""

    label: str
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    of: "Tree"


@dataclass(frozen=True, slots=True)
class Every:
    """All of these; of none that is everything."""

    of: "tuple[Tree, ...]"


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of these."""

    of: "tuple[Tree, ...]"


Tree: TypeAlias = Has | Is | In | Not | Every | Some

COMPARE: Mapping[str, Callable[[str, str], bool]] = {
    "==": str.__eq__,
    "contains": str.__contains__,
    "starts with": str.startswith,
    "ends with": str.endswith,
}


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector as it was written, and what it means."""

    text: str
    tree: Tree

    def __str__(self) -> str:
        return self.text

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether something with these labels is selected."""
        return _holds(self.tree, labels)


def _holds(tree: Tree, labels: Mapping[str, str]) -> bool:
    match tree:
        case Has(label):
            return label in labels
        case Is(label, how, value):
            return label in labels and COMPARE[how](labels[label], value)
        case In(label, values):
            return labels.get(label) in values
        case Not(of):
            return not _holds(of, labels)
        case Every(of):
            return all(_holds(each, labels) for each in of)
        case Some(of):
            return any(_holds(each, labels) for each in of)
        case _:
            assert_never(tree)


# --- reading


class _Token(NamedTuple):
    kind: str  # word, string, symbol or end
    text: str
    column: int


TOKEN = re.compile(
    r"""\s*+(?: (?P<word>[A-Za-z0-9_./-]++) | (?P<string>"[^"]*+"|'[^']*+') | (?P<symbol>==|!=|&&|\|\||[!(){},]) )""",
    re.VERBOSE,
)
"""Label names are Calico's: letters, digits and `_./-`. Possessive, so that no text takes more than one pass."""

COMPARISONS: Mapping[str, Comparison] = {
    "==": "==",
    "!=": "==",
    "contains": "contains",
    "starts with": "starts with",
    "ends with": "ends with",
}
"""The comparison in each operator, before it is negated."""

SPELLINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    *(((name,), name) for name in ("==", "!=", "in", "contains")),
    *((tuple(name.split()), name) for name in ("not in", "starts with", "ends with")),
    *(((name.replace(" ", ""),), name) for name in ("not in", "starts with", "ends with")),
)
"""Every way to write an operator: Calico lets the space between its words go."""

OPERATORS = "==, !=, in, not in, contains, starts with or ends with"
TERMS = "a label, has(label), all(), global(), ! or ("


def parse(text: str) -> Selector:
    """Read a selector; an empty one selects everything, as in Calico.

    Raises:
        SelectorError: naming the column, what stands there, and what would be right.
    """
    tokens = tuple(_tokens(text))
    if len(tokens) == 1:
        return Selector(text, Every(()))
    return Selector(text, _Reader(tokens).whole())


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = TOKEN.match(text, at, end)
        if found is None:
            at += len(text[at:end]) - len(text[at:end].lstrip())
            raise SelectorError(_no_token(text[at:end], at + 1))
        kind = "word" if found["word"] else "string" if found["string"] else "symbol"
        value = found[kind]
        yield _Token(kind, value[1:-1] if kind == "string" else value, found.start(kind) + 1)
        at = found.end()
    yield _Token("end", "", end + 1)


def _no_token(rest: str, column: int) -> str:
    if rest[0] in "\"'":
        return f"column {column}: the string that begins here has no end; close it with {rest[0]}"
    doubled = {"=": "==", "&": "&&", "|": "||"}.get(rest[0])
    remedy = f"write {doubled}" if doubled else "quote values, as 'a1'; label names have letters, digits and _./- only"
    return f"column {column}: {rest[0]!r} means nothing here; {remedy}"


class _Reader:
    """Reads tokens from left to right, each once."""

    def __init__(self, tokens: tuple[_Token, ...]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Tree:
        tree = self._some()
        if self._next.kind != "end":
            raise self._unexpected("&&, || or the end")
        return tree

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _taken(self, symbol: str) -> bool:
        """Step over a symbol, if it is the next."""
        if self._next.kind != "symbol" or self._next.text != symbol:
            return False
        self._at += 1
        return True

    def _must(self, symbol: str, instead: str = "") -> None:
        if not self._taken(symbol):
            raise self._unexpected(instead or symbol)

    def _unexpected(self, wanted: str) -> SelectorError:
        token = self._next
        found = "the selector ends" if token.kind == "end" else f"{token.text!r} stands"
        return SelectorError(f"column {token.column}: {found} where {wanted} should be")

    def _some(self) -> Tree:
        choices = [self._every()]
        while self._taken("||"):
            choices.append(self._every())
        return choices[0] if len(choices) == 1 else Some(tuple(choices))

    def _every(self) -> Tree:
        terms = [self._term()]
        while self._taken("&&"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else Every(tuple(terms))

    def _term(self) -> Tree:
        negated = False
        while self._taken("!"):
            negated = not negated
        tree = self._plain_term()
        return Not(tree) if negated else tree

    def _plain_term(self) -> Tree:
        column = self._next.column
        if self._taken("("):
            self._depth += 1
            if self._depth > DEEPEST:
                raise SelectorError(f"column {column}: more than {DEEPEST} parentheses in each other; write it flatter")
            tree = self._some()
            self._must(")", "&&, || or )")
            self._depth -= 1
            return tree
        if self._next.kind != "word":
            raise self._unexpected(TERMS)
        word = self._take().text
        return self._function(word) if self._taken("(") else self._comparison(word)

    def _function(self, name: str) -> Tree:
        match name:
            case "has":
                if self._next.kind != "word":
                    raise self._unexpected("the name of a label, as has(rack),")
                tree: Tree = Has(self._take().text)
            case "all":
                tree = Every(())
            case "global":
                tree = Not(Has(NAMESPACE))
            case _:
                self._at -= 1
                raise self._unexpected(f"an operator ({OPERATORS}), or before it has, all or global,")
        self._must(")")
        return tree

    def _comparison(self, label: str) -> Tree:
        how = self._operator()
        tree: Tree = In(label, self._set()) if how.endswith("in") else Is(label, COMPARISONS[how], self._string())
        return Not(tree) if how in ("!=", "not in") else tree

    def _operator(self) -> str:
        """Step over an operator, which may be of two words, and return it as it is written best."""
        for words, name in SPELLINGS:
            ahead = self._tokens[self._at : self._at + len(words)]
            if tuple(token.text for token in ahead) == words and all(token.kind != "string" for token in ahead):
                self._at += len(words)
                return name
        raise self._unexpected(OPERATORS)

    def _string(self) -> str:
        if self._next.kind != "string":
            raise self._unexpected("a value in quotes, as 'a1',")
        return self._take().text

    def _set(self) -> frozenset[str]:
        self._must("{", "a set of values, as {'a', 'b'},")
        values: set[str] = set()
        if self._taken("}"):
            return frozenset()
        while True:
            values.add(self._string())
            if self._taken("}"):
                return frozenset(values)
            self._must(",", ", or }")
