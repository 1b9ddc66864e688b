"""Contrast tasks that the values decide: both answers parse, one of them does what the program says."""

from __future__ import annotations

from .contrast_registry import Material, Pair, contrast_task
from .draw import pool

CLASSES = pool("Point Node Item User Book Car Task Cell Box")
FILE_PAIRS = (
    ("input", "output"),
    ("source", "target"),
    ("read", "write"),
    ("template", "report"),
    ("old", "new"),
    ("src", "dst"),
    ("default", "result"),
    ("config", "log"),
    ("in", "out"),
)
LONG_NAMES = pool(
    "row_index line_no item_id col_index start_index node_id word_no key_index line_index name_no file_no item_index "
    "node_index page_no file_index data_index list_index user_id text_index path_index"
)


def grown(material: Material, name: str) -> Pair:
    """Return a variable that starts as an empty set or string and grows in a loop."""
    draw = material.draw
    other, each = material.names(2, (name,))
    empty = draw.pick(("''", '""'))
    before = f"{material.context((name, other, each), 1)}{name} ="
    distractor = f"\n{other} = {draw.pick(('set()', empty))}" if draw.chance(0.5) else ""
    words = ", ".join(material.quoted() for _ in range(draw.between(1, 2)))
    after = f"{distractor}\nfor {each} in [{words}]:\n    {name}"
    return Pair(before, " set()", f" {empty}", after, ".", " +=", f"add({each})\n", f" {each}\n")


@contrast_task(
    3,
    (".", " +="),
    "The published candidates are `.add` and `+=`; ours are the dot and `+=`.",
    "execution",
)
def set_or_string(material: Material) -> Pair:
    """A set grows by `.add`, a string by `+=`. The cue is what the variable was set to: `set()` or an empty string."""
    return grown(material, material.names(1)[0])


@contrast_task(
    4,
    (".", " +="),
    "As task 3. The name is `current` in both splits, as published.",
    "execution",
)
def set_or_string_fixedvarname(material: Material) -> Pair:
    """As `set_or_string`, and the variable is always called `current`."""
    return grown(material, "current")


@contrast_task(
    5,
    (" <first>", " <second>"),
    "As published in what is asked; the candidates are two of the class's own parameters.",
    "execution",
)
def class_init(material: Material) -> Pair:
    """An attribute is given the parameter of its own name. The cue is the name of the attribute."""
    draw = material.draw
    first, second, *others = parameters = material.names(draw.between(2, 4))
    order = draw.sample(parameters, len(parameters))
    before = f"class {material.pick(CLASSES)}:\n    def __init__(self, {', '.join(order)}):\n"
    before += "".join(f"        self.{other} = {other}\n" for other in others)
    return Pair(before + "        self.", first, second, " =", f" {first}", f" {second}", "\n", "\n")


@contrast_task(
    8,
    ("r", "w"),
    "As published in what is asked; the names of the files are ours.",
    "convention",
)
def with_open(material: Material) -> Pair:
    """A file is read or written by what its name says. The cue is the file's name."""
    draw = material.draw
    to_read, to_write = material.pick(FILE_PAIRS)
    quote, name, handle = draw.pick("'\""), *material.names(2)
    kind = draw.pick(("txt", "csv", "json", "log"))
    before = f"{material.context((name, handle))}with open({quote}"
    after = f".{kind}{quote}, {quote}"
    reading = f"{quote}) as {handle}:\n    {name} = {handle}.read()\n"
    writing = f"{quote}) as {handle}:\n    {handle}.write({material.quoted()})\n"
    return Pair(before, to_read, to_write, after, "r", "w", reading, writing)


@contrast_task(
    12,
    ("{", '"'),
    "The published contrast is whether a variable is inserted. Ours is an f-string against a raw string, so that the "
    "lengths agree; the other candidate is the closing quote.",
    "execution",
)
def fstring_brace(material: Material) -> Pair:
    """A label in an f-string is followed by a replacement field, in a raw string by the end. The cue is `f` or `r`."""
    draw = material.draw
    name, other = material.names(2)
    value = draw.pick((material.number, material.quoted))()
    opening = draw.pick(("print(", f"{other} = str(", f"{other} = [", f"{other} = ("))
    closing = "]" if opening.endswith("[") else ")"
    before = f"{material.context((name, other), 1)}{name} = {value}\n{opening}"
    label = f'"{material.phrase(2)}{draw.pick((": ", " = ", " ", "="))}'
    return Pair(before, "f", "r", label, "{", '"', f'{name}}}"{closing}\n', f"{closing}\n")


@contrast_task(
    14,
    (" <first>", " <third>"),
    "The published template is `x, y = y, x`. In ours the negative prompt swaps another variable with the same one.",
    "execution",
)
def var_swap(material: Material) -> Pair:
    """A swap ends with the name it began with. The cue is the first name on the left."""
    names = material.names(3)
    lines = [f"{name} = {material.quoted()}\n" for name in names]
    first, second, third = material.draw.sample(names, 3)
    return Pair("".join(lines), first, third, f", {second} = {second},", f" {first}", f" {third}", "\n", "\n")


@contrast_task(
    18,
    (" enumerate", " range"),
    "As published in what is asked. The single loop variable has a name of three tokens, so that the lengths agree.",
    "execution",
)
def enumerate_range(material: Material) -> Pair:
    """Two loop variables ask for `enumerate`, one for `range`. The cue is the loop variables."""
    items, index, each, other = material.names(4)
    before = (
        f"{material.context((items, index, each, other), 1)}{items} = [{material.numbers(2, 4)}]\n"
        f"{other} = {material.number()}\nfor"
    )
    ends = f"({items}):\n    {other} = {index}\n", f"({material.number()}):\n    {other} = {material.number()}\n"
    return Pair(before, f" {index}, {each}", f" {material.pick(LONG_NAMES)}", " in", " enumerate", " range", *ends)
