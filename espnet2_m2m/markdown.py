"""Tables in Markdown, as RESULTS.md, TABLES.md, RESULTS_ASR.md and DIAGNOSIS.md have them."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1, form: str = "plain") -> str:
    """A Markdown table, without a newline at its end.

    Args:
        header: titles of the columns.
        rows: cells, written with str().
        left: the first so many columns are words and begin at the left; the others are numbers.
        form: "plain"; "padded", columns that are also readable as text; or "espnet", as ESPnet writes its RESULTS.md.
    """
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) if form == "padded" else 3 for column in zip(*lines)]
    rule = [":" + "-" * (w - 1) if n < left else "-" * (w - 1) + ":" for n, w in enumerate(widths)]
    if form == "padded":
        lines = [[f"{cell:{'<' if n < left else '>'}{widths[n]}}" for n, cell in enumerate(line)] for line in lines]
    if form != "espnet":
        lines = [[f" {cell} " if cell or n else " " for n, cell in enumerate(line)] for line in lines]
    rule = {"plain": rule, "padded": [f" {dashes} " for dashes in rule], "espnet": ["---"] * len(rule)}[form]
    return "\n".join("|" + "|".join(cells) + "|" for cells in (lines[0], rule, *lines[1:]))
