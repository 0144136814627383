"""The words of the house: three verbs for repeating work, and no retired word."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("beamtide", "beamline_side", "cluster_side")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "changes").glob("+*.md")]
SYNONYMS = re.compile(
    r"\b(re-?runs? (a |the )?(task|scan)s?|retr(y|ies) (a |the )?(scan|bundle)s?|reprocess(es)? (a |the )?(task|bundle)s?"
    r"|(runs?|ran|process(es|ed)?|(reconstruct|comput)ed|submit(s|ted|ting)?)( it| them| the \w+)? (again|anew)"
    r"|resubmit\w*|re-(try|process|run|submit)|reproduc(e|es|ed))\b",
    re.IGNORECASE,
)
"""Ways to say what `retry` (a task), `reprocess` (a scan) and `rerun` (a bundle or a crate) say."""
VERBS = {"retry", "reprocess", "rerun"}


def texts_of(path: pathlib.Path) -> list[str]:
    """Return all that people read of a file: a page, or the strings of a module, docstrings among them."""
    if path.suffix == ".md":
        return [path.read_text()]
    return [
        "".join(part.value for part in node.values if isinstance(part, ast.Constant) and isinstance(part.value, str))
        if isinstance(node, ast.JoinedStr)
        else node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def synonyms_in(text: str) -> list[str]:
    """Return the forbidden ways to say one of the three verbs."""
    return [found[0] for found in SYNONYMS.finditer(" ".join(text.split())) if found[0].lower() not in VERBS]


@pytest.mark.parametrize(
    "text", ["Run it again", "the scan is processed\nagain", "retry the scan", "resubmit", "reproduce", "rerun a task", "re-run"]
)
def test_a_synonym_is_found(text: str) -> None:
    assert synonyms_in(text)


@pytest.mark.parametrize("text", ["retry a task", "reprocess a scan", "rerun a bundle", "it is sent again", "reprocesses what"])
def test_the_three_verbs_are_allowed(text: str) -> None:
    assert not synonyms_in(text)


def test_only_three_verbs_repeat_work() -> None:
    texts = [(path.relative_to(ROOT), text) for path in (*MODULES, *PAGES) for text in texts_of(path)]
    found = [f"{path}: {said}" for path, text in texts for said in synonyms_in(text)]
    assert not found
