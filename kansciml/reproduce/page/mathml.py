"""Formulas within plain text as MathML: ``I (O + 1)``, ``G = 5``, ``10^-10`` and numbers such as ``5.6e-6``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]?\w)"
# of single letters the article and the sign of times are names only where a relation or a power says so
_NAME = r"(?:(?<![\w'-])(?:(?![aAx])[A-Za-z]|[aA](?= ?[=<>^]))|(?<=\^)[A-Za-z]|(?<=\^-)[A-Za-z])(?!['\w]|-\w)"
_SIGN = r"\+-|<=|>=|[-+*/=<>^]"
_TOKEN = re.compile(rf"(?P<number>(?<![\w.]){_NUMBER})|(?P<name>{_NAME})|(?P<sign>{_SIGN})|(?P<bracket>[()\[\]])")
_SHOWN = {"-": "\u2212", "+-": "\u00b1", "*": "\u00b7", "<=": "\u2264", ">=": "\u2265"}
_RELATIONS = ("=", "<", ">", "<=", ">=")
_PAIRS = {"(": ")", "[": "]"}
_TIMES = re.compile(r"(?<=\d) x(?= \d|[,;.)]|$| )")
_WHOLE = '<span class="whole">{}</span>'
_POINTED = re.compile(r"[(\[]*<math>(?:(?!</math>).)*</math>[,.;:)\]]*")
_BREAK = "\0"
LONG = 10
"""A formula, or what is in brackets in it, of more tokens may be broken into lines."""
_MARKUP = {"number": "mn", "name": "mi", "sign": "mo", "bracket": "mo"}

Token = tuple[str, str]
"""Kind and text."""


def with_formulas(text: str) -> Markup:
    """Plain text as HTML, its formulas as MathML, and the signs of times and of plus or minus as such."""
    parts, told, at = [], 0, 0
    while run := _run(text, at):
        begin, end = _formula(run)
        at = run[end - 1].end()
        if begin < end:
            parts += [_words(text[told : run[begin].start()]), _math([_told(one) for one in run[begin:end]])]
            told = at
    found = "".join([*parts, _words(text[told:])])
    return Markup(_POINTED.sub(lambda one: one[0] if one[0][0] + one[0][-1] == "<>" else _WHOLE.format(one[0]), found))


def _words(text: str) -> Markup:
    return escape(_TIMES.sub(" \u00d7", text).replace("+-", "\u00b1"))


def _run(text: str, at: int) -> list[re.Match[str]]:
    """The next tokens that nothing but single blanks separates; none: there are no more."""
    first = _TOKEN.search(text, at)
    run = []
    while first:
        run.append(first)
        first = _TOKEN.match(text, first.end() + (text[first.end() : first.end() + 1] == " "))
    return run


def _told(match: re.Match[str]) -> Token:
    return str(match.lastgroup), match[0]


def _formula(run: Sequence[re.Match[str]]) -> tuple[int, int]:
    """Where the longest part of a run begins and ends that is a formula; the same twice: no part is one."""
    tokens = [_told(one) for one in run]
    for length in range(len(tokens), 0, -1):
        for begin in range(len(tokens) - length + 1):
            if _is_formula(tokens[begin : begin + length]):
                return begin, begin + length
    return 0, 0  # which ends with the run


def _is_formula(tokens: Sequence[Token]) -> bool:
    """Whether it is whole, and says more than a number or a letter in the text does."""
    kinds = [kind for kind, _ in tokens]
    texts = [text for _, text in tokens]
    if (texts[0] != "-" and kinds[0] == "sign") or kinds[-1] == "sign" or not _balanced(texts):
        return False
    if len(tokens) == 1:
        return kinds == ["number"] and "e" in texts[0]
    if "^" in texts or (kinds.count("number") + kinds.count("name") > 1 and "name" in kinds):
        return True
    return any("e" in text for kind, text in tokens if kind == "number") and "bracket" not in kinds


def _balanced(texts: Sequence[str]) -> bool:
    """Whether brackets come in pairs; a relation in brackets is a remark on what stands before them."""
    waiting: list[str] = []
    for text in texts:
        if text in _PAIRS:
            waiting.append(_PAIRS[text])
        elif text in _PAIRS.values() and (not waiting or waiting.pop() != text):
            return False
        elif text in _RELATIONS and waiting:
            return False
    return not waiting


def _math(tokens: Sequence[Token]) -> Markup:
    """A formula; of a long one each term by itself, so that lines can break between them."""
    parts = _row(tokens).replace(f"{_BREAK}<mo>", '</math><wbr><math><mo form="infix">')
    return Markup(f"<math>{parts}</math>")


def _row(tokens: Sequence[Token]) -> str:
    """What stands beside each other, with a mark before each sign of a long row."""
    parts: list[str] = []
    rest = list(tokens)
    while rest:
        mark = _BREAK if parts and rest[0][0] == "sign" and len(tokens) > LONG else ""
        part = _atom(rest)
        while rest and rest[0][1] == "^":
            rest.pop(0)
            part = f"<msup>{part.replace(_BREAK, '')}<mrow>{_atom(rest, signed=True)}</mrow></msup>"
        parts.append(mark + part)
    return "".join(parts)


def _atom(rest: list[Token], signed: bool = False) -> str:
    """The first atom of `rest`, which it is taken from: a number, a letter, a sign, or what stands in brackets."""
    kind, text = rest.pop(0)
    tag = _MARKUP[kind]
    if text in _PAIRS:
        inner, depth = [], 1
        while depth:
            token = rest.pop(0)
            depth += (token[1] in _PAIRS) - (token[1] in _PAIRS.values())
            inner.append(token)
        row = f"<mo>{text}</mo>{_row(inner[:-1])}<mo>{inner[-1][1]}</mo>"
        return row if _BREAK in row else f"<mrow>{row}</mrow>"
    if kind == "number" and "e" in text:
        digits, power = text.split("e")
        sign = "<mo>\u2212</mo>" if power.startswith("-") else ""
        tens = f"<msup><mn>10</mn><mrow>{sign}<mn>{int(power.lstrip('+-'))}</mn></mrow></msup>"
        return tens if digits == "1" else f"<mrow><mn>{digits}</mn><mo>\u00d7</mo>{tens}</mrow>"
    shown = f"<{tag}>{escape(_SHOWN.get(text, text))}</{tag}>"
    return shown + _atom(rest) if signed and kind == "sign" and rest else shown
