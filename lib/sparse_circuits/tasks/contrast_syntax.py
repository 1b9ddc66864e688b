"""Contrast tasks that Python's grammar decides: the wrong answer is a syntax error in at least one of the prompts."""

from __future__ import annotations

from .contrast_registry import Material, Pair, contrast_task
from .draw import pool

CALLS = pool("print len str run log find open list send get set add")
PURE = pool("max min abs sum sorted tuple len list")
FUNCTIONS = pool("load run get read find build check parse start update send open_file")
BLOCKS = ("if {}:", "while {}:", "for each in {}:", "with {}:", "if not {}:", "for part in {}:")


@contrast_task(
    1,
    ('"', "'"),
    "The published tokens fuse the quote with its bracket; ours are the bare quotes.",
    "syntax",
)
def single_double_quote(material: Material) -> Pair:
    """A string opened with a double or a single quote closes with the same one. The cue is the opening quote."""
    draw = material.draw
    name, other = material.names(2)
    opening, closing = draw.pick(
        (
            (f"{material.pick(CALLS)}(", ")"),
            (f"{name} = {material.pick(CALLS)}(", ")"),
            (f"{name} = [", "]"),
            (f"{name} = ", ""),
            (f"{other}.{material.pick(CALLS)}(", ")"),
        )
    )
    before = material.context((name, other)) + opening
    if opening[-1] != " " and draw.chance(0.3):
        before += f"{material.quoted()}, "
    return Pair(before, '"', "'", material.phrase(), '"', "'", f"{closing}\n", f"{closing}\n")


@contrast_task(
    2,
    ("=", ")"),
    "The published candidates are `=None` and `):` with a newline; ours are their first tokens. The negative prompt "
    "has one parameter more, so that the lengths agree.",
    "syntax, positive",
)
def final_kwarg(material: Material) -> Pair:
    """After a parameter with a default the later ones need a default. The cue is `=None` against one more name."""
    *leading, first, extra, last = material.names(material.draw.between(3, 5))
    before = material.context((), 1) + f"def {material.pick(FUNCTIONS)}({', '.join((*leading, first))}"
    return Pair(before, "=None", f", {extra}", f", {last}", "=", ")", "None):\n    pass\n", ":\n    pass\n")


@contrast_task(
    6,
    (" as", "\n"),
    "The published contrast is a with statement against an assignment; ours is `with open(...)` against "
    "`return open(...)`, which has the same length.",
    "syntax",
)
def with_as(material: Material) -> Pair:
    """A file opened by `with` gets its name by `as`; a returned one does not. The cue is `with` or `return`."""
    path, name = material.names(2)
    argument = material.draw.pick((path, material.quoted(), f"{path}, 'r'", f'{path}, "w"'))
    before = material.context((), 1) + f"def {material.pick(FUNCTIONS)}({path}):\n"
    if material.draw.chance(0.4):
        before += f"    {name} = {material.number()}\n"
    return Pair(before + "    ", "with", "return", f" open({argument})", " as", "\n", f" {name}:\n        pass\n", "")


@contrast_task(
    7,
    (":", ","),
    "As published, on bare tokens. A set display would allow the comma in the positive prompt.",
    "syntax, negative",
)
def bracket_brace(material: Material) -> Pair:
    """After a first string a dict goes on with a colon and a list with a comma. The cue is `{` or `[`."""
    name = material.names(1)[0]
    form = material.draw.pick((("", ""), (f"{material.pick(PURE)}(", ")"), ("[", "]")))
    before = material.context((name,)) + f"{name} = {form[0]}"
    ends = f" {material.number()}}}{form[1]}\n", f" {material.quoted()}]{form[1]}\n"
    return Pair(before, "{", "[", material.quoted(), ":", ",", *ends)


@contrast_task(
    9,
    ("]", "\n"),
    "The published candidates are `]]` and `]` with a newline as fused tokens; ours is asked after the first closing "
    "bracket. A minus sign stands where the second bracket stood, so that the lengths agree.",
    "syntax, newline ends the statement",
)
def bracket_counting(material: Material) -> Pair:
    """A nested list needs one more closing bracket than a flat one. The cue is a second `[` or a minus sign."""
    name = material.names(1)[0]
    outer = material.draw.pick((1, 1, 1, 2))
    before = material.context((name,), 1) + f"{name} = " + "[" * outer
    row = material.numbers(1, 6)
    return Pair(before, "[", "-", row + "]" * outer, "]", "\n", "\n", "")


@contrast_task(
    10,
    (" in", ":"),
    "As published. `while x in y:` keeps ` in` legal in the negative prompt.",
    "syntax, positive",
)
def for_while(material: Material) -> Pair:
    """After a name `for` goes on with `in` and `while` with a colon. The cue is the keyword."""
    name, items = material.names(2)
    before = material.context((name,), 2) + f"{items} = [{material.numbers()}]\n"
    return Pair(before, "for", "while", f" {name}", " in", ":", f" {items}:\n    pass\n", "\n    pass\n")


@contrast_task(
    11,
    (":", " <name>"),
    "The published contrast is a colon against anything else; our other candidate is the name that the branch above "
    "tests.",
    "syntax",
)
def else_elif(material: Material) -> Pair:
    """`else` is followed by a colon and `elif` by a condition. The cue is the keyword."""
    tested, changed = material.names(2)
    sign = material.draw.pick((">", "<", "==", "!="))
    before = (
        f"{material.context((tested, changed), 1)}{tested} = {material.number()}\n"
        f"if {tested} {sign} {material.number()}:\n    {changed} = {material.number()}\n"
    )
    end = f"\n    {changed} = {material.number()}\n"
    return Pair(before, "else", "elif", "", ":", f" {tested}", end, f" == {material.number()}:{end}")


@contrast_task(
    13,
    (":", " else"),
    "As published in what is asked. Our cue is three tokens long: the call above is closed and a line begins, or it "
    "has one more argument.",
    "syntax",
)
def if_ternary(material: Material) -> Pair:
    """An `if` statement goes on with a colon, an `if` inside a call with `else`. The cue closes the call or not."""
    name, first, second, test = material.names(4)
    before = material.context((first, second, test), 1) + f"{name} = {material.pick(PURE)}({first}"
    test = material.draw.pick((test, f"{test} > {material.number()}", f"{test} == {material.number()}"))
    ends = f"\n    {first} = {material.number()}\n", f" {material.number()})\n"
    return Pair(before, ")\nif", f", {second} if", f" {test}", ":", " else", *ends)


@contrast_task(
    15,
    (" " * 12, " " * 8),
    "The published templates are unknown. Ours puts the same loop inside or after a block of a function; the "
    "candidates are the two indentation tokens.",
    "syntax, positive",
)
def indent_for(material: Material) -> Pair:
    """The body of a loop is indented one level deeper than its header. The cue is the header's own indentation."""
    items, name, each, test = material.names(4)
    block = material.pick(BLOCKS).format(test)
    before = (
        f"def {material.pick(FUNCTIONS)}({items}, {test}):\n"
        f"    {block}\n        {name} = {material.draw.pick((material.number, material.quoted))()}\n"
    )
    ends = f"{name} = {each}\n", f"{name} = {each}\n"
    return Pair(before, " " * 8, " " * 4, f"for {each} in {items}:\n", " " * 12, " " * 8, *ends)


@contrast_task(
    16,
    (":", "("),
    "As published in what is asked. Our cue is four tokens long: a keyword argument `key=lambda`, or the end of the "
    "call and `def` after a blank line.",
    "syntax",
)
def lambda_func(material: Material) -> Pair:
    """A name after `lambda` is followed by a colon, after `def` by a bracket. The cue is the keyword's place."""
    name, items, argument = material.names(3)
    call = material.pick(pool("sorted max min"))
    before = f"{items} = [{material.numbers()}]\n{material.context((items,), 1)}{name} = {call}({items}"
    return Pair(before, ", key=lambda", ")\n\ndef", f" {argument}", ":", "(", f" -{argument})\n", "):\n    pass\n")


@contrast_task(
    17,
    (" ==", " ="),
    "As published in what is asked. The same name stands after `if` or at the start of an indented line, so the cue "
    "is two tokens long.",
    "syntax, positive",
)
def if_equals(material: Material) -> Pair:
    """A name after `if` is compared, a name that begins a line is assigned. The cue is `if` or indentation."""
    name, other, test = material.names(3)
    before = loop_above(material, other, test, name)
    ends = f" {material.number()}:\n    {other} = {material.number()}\n", f" {material.number()}\n"
    return Pair(before, f"if {name}", f"    {name}", "", " ==", " =", *ends)


def loop_above(material: Material, other: str, test: str, name: str) -> str:
    """Return a block that a further indented line may belong to."""
    block = material.pick(BLOCKS).format(test)
    return f"{material.context((name, other, test), 1)}{block}\n    {other} = {material.number()}\n"


@contrast_task(
    19,
    (":", "\n"),
    "The published candidates are `:` with a newline and a newline; ours are single tokens. The cue is three tokens "
    "long: `if x ==` against an indented `x =`.",
    "syntax",
)
def var_if(material: Material) -> Pair:
    """A comparison with True under `if` ends in a colon, an assignment of True in a newline. The cue is before it."""
    name, other, test = material.names(3)
    before = loop_above(material, other, test, name)
    value = material.draw.pick(("True", "False"))
    ending = f"\n    {other} = {material.number()}\n"
    return Pair(before, f"if {name} ==", f"    {name} =", f" {value}", ":", "\n", ending, "")


@contrast_task(
    20,
    (":", "\n"),
    "As published (its table says indentation, its text gives this meaning).",
    "syntax",
)
def while_return_true(material: Material) -> Pair:
    """`while True` ends in a colon, `return True` in a newline. The cue is the keyword."""
    name, *rest = material.names(material.draw.between(2, 3))
    before = (
        f"{material.context((), 1)}def {material.pick(FUNCTIONS)}({', '.join(rest)}):\n"
        f"    {name} = {material.draw.pick((material.number, material.quoted))()}\n    "
    )
    return Pair(before, "while", "return", " True", ":", "\n", f"\n        {name} = {material.number()}\n", "")
