"""Recipes: which engines run in which order, such as "DM 100 -> LSQML 50".

A recipe is a list of stages; a stage is the name of an engine, the number of its iterations, and, where the engine has some,
options in brackets: "RAAR(0.8) 50", "rPIE(0.05, batch 8) 30", "LSQML(batch 64) 50".
"""

import re
from dataclasses import dataclass

from beamtide.errors import BadInput

STAGE = re.compile(r"(?P<engine>[A-Za-z]+)\s*(\((?P<options>[^()]*)\))?\s*(?P<iterations>\d+)")
ENGINES = {"DM": "DM", "RAAR": "RAAR", "EPIE": "ePIE", "RPIE": "rPIE", "LSQML": "LSQML"}
STRENGTH = {"RAAR": 0.8, "rPIE": 0.05}
"""Relaxation of RAAR, softness of rPIE, where the recipe says nothing."""
MOST = 100_000


@dataclass(frozen=True, slots=True)
class RecipeStep:
    """One engine, for so many iterations."""

    engine: str
    iterations: int
    strength: float = 1.0
    batch: int | None = None
    """Positions per update; None: chosen from the scan."""


def parse(text: str) -> tuple[RecipeStep, ...]:
    """Return the stages of a recipe; BadInput says which stage cannot be understood."""
    return tuple(_stage(part.strip()) for part in re.split(r"->|→|;", text))


def _stage(text: str) -> RecipeStep:
    found = STAGE.fullmatch(text)
    if not found or found["engine"].upper() not in ENGINES:
        raise BadInput(f"recipe: {text!r} is no stage; write an engine ({', '.join(ENGINES.values())}) and iterations: DM 100")
    engine, iterations = ENGINES[found["engine"].upper()], int(found["iterations"])
    if not 1 <= iterations <= MOST:
        raise BadInput(f"recipe: {text!r} has {iterations} iterations; give 1 to {MOST}")
    strength, batch = STRENGTH.get(engine, 1.0), None
    for option in filter(None, (word.strip() for word in (found["options"] or "").split(","))):
        if (size := re.fullmatch(r"batch\s+([1-9]\d*)", option)) and engine in {"ePIE", "rPIE", "LSQML"}:
            batch = int(size[1])
        elif re.fullmatch(r"0?\.\d+|1(\.0*)?", option) and engine in STRENGTH and float(option) > 0:
            strength = float(option)
        else:
            raise BadInput(f"recipe: {engine} knows no option {option!r}; options are 'batch N' and, in (0, 1], a strength")
    return RecipeStep(engine, iterations, strength, batch)
