"""The three forms of a Markdown table, letter by letter."""

from espnet2_m2m import markdown

ROWS = [["mixture", 0.5], ["", "n/a"]]


def test_plain():
    assert markdown.table(["", "SDR (dB)"], ROWS) == "| | SDR (dB) |\n|:--|--:|\n| mixture | 0.5 |\n| | n/a |"
    assert markdown.table(["a", "b"], [["x", ""]], left=2) == "| a | b |\n|:--|:--|\n| x |  |"


def test_padded():
    desired = "| row     |  dB |\n| :------ | --: |\n| mixture | 0.5 |\n|         | n/a |"
    assert markdown.table(["row", "dB"], ROWS, form="padded") == desired


def test_espnet():
    assert (
        markdown.table(["dataset", "Snt"], [["mixture", 4]], form="espnet") == "|dataset|Snt|\n|---|---|\n|mixture|4|"
    )
