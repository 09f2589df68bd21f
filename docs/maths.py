"""The rules of the docstrings as MathML, which browsers typeset without a script.

A docstring's rule is mathematics that reads well as plain text: `u = m/(1 − b1^t) / (√v + eps)`.
Here "/" without spaces divides the two factors beside it, and " / " with spaces all that is
multiplied. Words between formulas stay text.
"""

import re
import unicodedata
from collections.abc import Iterable
from html import escape

TOKEN = re.compile(
    r"\s*(\d[\d.]*|Σ|[^\W\d_]\u0302?(?:\d+|[₀-₉]+)?(?![^\W²³₀-₉])|[^\W\d](?:[^\W²³]|['–-])*|\S)"
)
STATEMENT = re.compile(r";\s+|\n\s*")
RELATIONS = "←=<>≤≥"
SUPERSCRIPTS = "²³"
CLOSING = {"(": ")", "⟨": "⟩", "|": "|"}


def rule(text: str, names: Iterable[str]) -> str:
    """A rule as HTML, one statement a paragraph.

    Args:
      text: what a docstring has under "Rule:".
      names: the words that are variables, such as the arguments of the optimizer; those that the
        rule assigns are recognised, as are single letters.

    Raises:
      ValueError: for a formula that this cannot read.
    """
    known = {*names, *re.findall(r"(\w{2,}) (?:←|= )", text)}
    statements = (s for s in STATEMENT.split(text) if s)
    return "\n".join(f"<p>{_Reader(statement, known).statement()}</p>" for statement in statements)


def _tag(kind: str, *parts: str) -> str:
    return f"<{kind}>{''.join(parts)}</{kind}>"


def _row(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else _tag("mrow", *parts)


def _operator(symbol: str) -> str:
    return _tag("mo", escape(symbol))


class _Reader:
    """Reads one statement from left to right, by recursive descent."""

    def __init__(self, text: str, names: set[str]) -> None:
        matches = list(TOKEN.finditer(text))
        self.tokens = [match[1] for match in matches]
        self.spaced = [match[0] != match[1] for match in matches]
        self.names = names
        self.at = 0
        self.depth = 0

    def peek(self, offset: int = 0) -> str:
        index = self.at + offset
        return self.tokens[index] if index < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def touches(self, offset: int = 0) -> bool:
        """Whether a token follows the one before it without a space."""
        index = self.at + offset
        return index < len(self.tokens) and not self.spaced[index]

    def is_name(self) -> bool:
        token = self.peek()
        if not token or not (token[0].isalpha() or token[0] == "_"):
            return False
        if token in self.names or "_" in token or any(map(str.isdigit, token)):
            return True
        single = len(unicodedata.normalize("NFC", token).rstrip("\u0302₀₁₂₃₄₅₆₇₈₉")) == 1
        glued = self.touches(1) and self.peek(1) in ("(", "/", "^", "·")
        return single or glued or (self.touches() and self.peek(-1) in ("/", "√", "·"))

    def is_word(self) -> bool:
        return self.peek()[:1].isalpha() and not self.is_name()

    def statement(self) -> str:
        """HTML: formulas as <math>, the words and commas between them as they stand."""
        out = []
        while self.peek():
            space = " " if self.spaced[self.at] and self.at else ""
            if self.is_word() or self.peek() in (",", ":"):
                out.append(space + escape(self.take()))
            else:
                out.append(f'{space}<math displaystyle="true">{_row(self.relation())}</math>')
        return "".join(out)

    def relation(self) -> list[str]:
        """Sums joined by arrows and the like; empty sides are allowed where words follow."""
        parts = self.sum()
        while self.peek() and self.peek() in RELATIONS:
            parts += [_operator(self.take()), *self.sum()]
        if not parts:
            raise ValueError(f"no formula at {' '.join(self.tokens[self.at :])!r}")
        return parts

    def sum(self) -> list[str]:
        parts = []
        while True:
            if self.peek() in ("+", "−"):
                parts.append(_operator(self.take()))
            elif parts and not parts[-1].startswith("<mo>"):
                return parts
            if not self.starts_factor():
                return parts
            parts += self.ratio()

    def starts_factor(self) -> bool:
        token = self.peek()
        if not token or token in RELATIONS or token in ",:;)⟩+−·/^":
            return False
        return not self.is_word() or self.depth > 0

    def ratio(self) -> list[str]:
        """product / product, with spaces: one fraction over all the factors."""
        parts = self.product()
        while self.peek() == "/":
            self.take()
            parts = [_fraction(parts, self.product())]
        return parts

    def product(self) -> list[str]:
        parts = self.quotient()
        while True:
            if self.peek() == "·":
                self.take()
                factor = self.quotient()
                parts += [_times(parts[-1], factor[0]), *factor]
            elif self.starts_factor() and self.touches() and self.peek() != "|":
                parts += self.quotient()
            else:
                return parts

    def quotient(self) -> list[str]:
        parts = self.power()
        while self.peek() == "/" and self.touches():
            self.take()
            parts = [_fraction(parts, self.power())]
        return parts

    def power(self) -> list[str]:
        parts = self.atom()
        while self.peek() and self.peek() in SUPERSCRIPTS + "^":
            token = self.take()
            exponent = (
                [_tag("mn", unicodedata.normalize("NFKC", token))]
                if token in SUPERSCRIPTS
                else _bare(self.atom())
            )
            subscripted = re.fullmatch(r"<msub>(.*)</msub>", _row(parts))
            parts = (
                [_tag("msubsup", subscripted[1], _row(exponent))]
                if subscripted
                else [_tag("msup", _row(parts), _row(exponent))]
            )
        return parts

    def atom(self) -> list[str]:
        if self.is_word():
            return self.words()
        if self.is_name():
            name = _name(self.take())
            applied = self.peek() == "(" and self.touches()
            return [name, *self.atom()] if applied else [name]
        token = self.take() if self.peek() else ""
        if token in CLOSING:
            return [self.bracket(token)]
        if token == "√":
            return [_tag("msqrt", *_bare(self.power()))]
        if token in ("Σ", "∇"):
            return [_operator(token), *self.power()]
        if token[:1].isdigit():
            return [_tag("mn", token)]
        raise ValueError(f"unexpected {token!r} in {' '.join(self.tokens)!r}")

    def words(self) -> list[str]:
        """Words inside brackets, with the spaces around them."""
        found = []
        while self.is_word():
            found.append(self.take())
        after = "" if self.touches() or not self.peek() else "\u00a0"
        return [_tag("mtext", escape("\u00a0".join(found)) + after)]

    def bracket(self, opening: str) -> str:
        self.depth += 1
        parts = []
        while self.peek() != CLOSING[opening]:
            parts += [_operator(self.take())] if self.peek() == "," else self.inside()
        self.take()
        self.depth -= 1
        open_, close = (f'<mo stretchy="true">{mark}</mo>' for mark in (opening, CLOSING[opening]))
        return _tag("mrow", open_, *parts, close)

    def inside(self) -> list[str]:
        parts = self.relation()
        while self.starts_factor() and self.peek() != "|":
            space = "\u00a0" if not parts[-1].endswith("\u00a0</mtext>") else ""
            parts += [_tag("mtext", space)] if space else []
            parts += self.relation()
        return parts


def _times(left: str, right: str) -> str:
    """Multiplication: a thin space between single letters, a point beside a longer name."""
    long = re.search(r"<mi>\w\w+</mi>$", left) or re.match(r"<mi>\w\w+</mi>$", right)
    return "<mo>·</mo>" if long else '<mspace width="0.17em"></mspace>'


def _fraction(above: list[str], below: list[str]) -> str:
    """Fractions inside a fraction keep their size."""
    full = (
        '<mrow displaystyle="true">' + "".join(_bare(side)) + "</mrow>" for side in (above, below)
    )
    return _tag("mfrac", *full)


def _bare(parts: list[str]) -> list[str]:
    """Without the round brackets that a fraction, a root or an exponent makes superfluous."""
    opening, closing = (f'<mrow><mo stretchy="true">{mark}</mo>' for mark in "()")
    closing = closing.removeprefix("<mrow>") + "</mrow>"
    if len(parts) == 1 and parts[0].startswith(opening) and parts[0].endswith(closing):
        inner = parts[0][len(opening) : -len(closing)]
        if not _unbalanced(inner):
            return [_tag("mrow", inner)]
    return parts


def _unbalanced(inner: str) -> bool:
    depth = 0
    for mark in re.findall(r'<mo stretchy="true">([()])</mo>', inner):
        depth += 1 if mark == "(" else -1
        if depth < 0:
            return True
    return False


def _name(token: str) -> str:
    """A variable: a hat over it; digits, or the word after a single letter, below it."""
    letter, below = token, ""
    if named := re.fullmatch(r"([^_])_(\w+)", token):
        letter, below = named[1], _tag("mtext", escape(named[2]))
    elif numbered := re.fullmatch(r"(\D*?)([₀-₉]+|\d+)", token):
        letter = numbered[1]
        below = _tag("mn", unicodedata.normalize("NFKC", numbered[2]))
    hat = letter.endswith("\u0302")
    base = _tag("mi", escape(letter.removesuffix("\u0302")))
    base = _tag("mover", base, _operator("^")) if hat else base
    return _tag("msub", base, below) if below else base
