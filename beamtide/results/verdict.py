"""What a reconstruction says of its own quality, wherever its datasets' headers are: in messages, files and pictures.

Datasets of text: "quality/verdict" (one of the three below), "quality/advice" (what to try where it did not converge), and
"quality/positions" (whether positions that were refined are better than measured ones).
"""

from collections.abc import Iterable

from beamtide.messages.results import DatasetHeader

CONVERGED, NOT_CONVERGED, UNKNOWN = "converged", "did not converge", "cannot tell"
VERDICT, ADVICE, POSITIONS = "quality/verdict", "quality/advice", "quality/positions"
NO_BETTER = "refined, but no better"
"""How POSITIONS begins where refinement did not help."""


def said_by(headers: Iterable[DatasetHeader]) -> str:
    """Return the verdict and its advice in one sentence; "" where these datasets have no verdict."""
    texts = {header.name: header.attributes.get("text", "") for header in headers}
    verdict, advice = texts.get(VERDICT, ""), texts.get(ADVICE, "")
    found = [f"{verdict}: {advice}" if verdict and advice else verdict]
    if (positions := texts.get(POSITIONS, "")).startswith(NO_BETTER):
        found.append(f"positions were {positions}")
    return "; ".join(found)


def warning_of(headers: Iterable[DatasetHeader]) -> str:
    """Return the same where there is something to warn of, "" otherwise."""
    said = said_by(headers)
    return "" if said == CONVERGED else said
