"""The words of the house: the glossary is law, three verbs repeat work, and no retired word comes back."""

import ast
import itertools
import pathlib
import re
from collections import Counter

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


RETIRED = set(
    "attendance beating brake brood buy closings company crew doubts errand errands gatekeeper growing hatchery knock lent"
    " nursery outbox rehearsal rehearse reproduce showing steering tempo ticket".split()
)
"""Words of version 0.1 that must not come back as (part of) a name; docs/glossary.md says what replaced them."""
PHRASES = {("last", "words"), ("take", "back"), ("job", "life")}


def named(path: pathlib.Path) -> set[str]:
    """Return all names of a module: of what it defines, imports and uses."""
    names: set[str] = {path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names |= {*name.split("."), other or ""}
            case ast.keyword(arg=name) if name:
                names.add(name)
    return names


def words_of(name: str) -> list[str]:
    """Return the words of an identifier: LeaseTable, lease_table and LEASE_TABLE are "lease", "table"."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def retired_in(name: str) -> bool:
    """Whether a name has a retired word, or two words that are retired together."""
    words = words_of(name)
    return bool(RETIRED.intersection(words) or PHRASES.intersection(itertools.pairwise(words)))


@pytest.mark.parametrize("name", ["Nursery", "_last_words", "TakeBack", "crew_of", "LENT", "JobLife"])
def test_a_retired_word_is_found(name: str) -> None:
    assert retired_in(name)


@pytest.mark.parametrize("name", ["silent", "words", "take", "back_words", "recipe", "bought", "talent"])
def test_other_words_are_left_alone(name: str) -> None:
    assert not retired_in(name)


def test_retired_words_are_not_names() -> None:
    assert not [f"{path.relative_to(ROOT)}: {name}" for path in MODULES for name in sorted(named(path)) if retired_in(name)]


def test_the_glossary_names_every_retired_word() -> None:
    told = set(words_of((ROOT / "docs/glossary.md").read_text().partition("## Words that changed")[2]))
    assert {word for word in RETIRED if word not in told} <= {"brood", "buy", "errand", "hatchery", "rehearse", "reproduce"}


def classes() -> list[str]:
    """Return the names of all classes of the packages, without the underscore of private ones."""
    trees = (ast.parse(path.read_text()) for path in MODULES)
    return [node.name.lstrip("_") for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def glossary() -> list[tuple[str, str]]:
    """Return (word, class or "") of each row of the glossary."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ?(?:`(\w+)`)? ?\|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    return [(word.strip(), name) for word, name in rows if word.strip() not in ("word", "---")]


def test_no_two_classes_share_a_name() -> None:
    assert not [name for name, count in Counter(classes()).items() if count > 1]


def test_every_word_of_the_glossary_has_one_meaning() -> None:
    words = [word for word, _ in glossary()]
    lines = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith("| ")]
    assert len(words) == len(lines) - 1 > 80, "a row of the glossary is not understood"
    assert words == sorted(words, key=str.lower), "words stand in alphabetical order"
    assert len(set(words)) == len(words)


def test_a_word_of_the_glossary_that_is_a_class_means_that_class() -> None:
    known = set(classes())
    assert not {name for _, name in glossary() if name} - known, "the glossary names a class that does not exist"
    camel = {word: "".join(part.capitalize() for part in re.split(r"[ -]", word)) for word, _ in glossary()}
    wrong = [
        f"{word}: {name or 'no class'}, but there is {camel[word]}" for word, name in glossary() if camel[word] in known - {name}
    ]
    assert not wrong
