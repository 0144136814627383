"""Do the verdicts of ptychography tell right from wrong? Objects, optics and doses with a known answer, and what people do wrong.

Each world (a simulated scan, or the measured Siemens star) is reconstructed in five ways:

    right     the probe is known
    unknown   the probe is not: the default
    distance  the distance is 20 % off, too far and too near in turn
    flipped   one sign of the positions is wrong
    short     RAAR 2 -> LSQML 1

What should be said: "converged" where the settings are right, the recipe is whole, and the object is like the true one (LIKE).
Where it is not like it in spite of that, "did not converge" or "cannot tell". Everywhere else "did not converge", also where a
short recipe came close; "cannot tell" counts as not right there.

Worlds are in four parts: what a verdict asks and its thresholds were chosen on two of them and the measured star. The other half,
with other optics, doses and noise, and with objects that the first has not (pictures that Matplotlib brings along), judges. Rows
go to docs/proofs/ptycho_verdicts.json, with the commit and the constants that they were made with; a test compares these with
the code's.
It fails if less than SHARE of the half that judges is right, or if a wrong object is called converged anywhere.

    python -m benchmarks.ptycho_verdicts            all
    python -m benchmarks.ptycho_verdicts --first    the half to choose thresholds by
    python -m benchmarks.ptycho_verdicts --short    three worlds of the half that judges
"""

import bz2
import json
import os
import pathlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from beamtide.results.verdict import CONVERGED, NOT_CONVERGED, UNKNOWN
from cluster_side.modalities.context import Context
from cluster_side.modalities.ptychography import assessment, cross_validation, datasets, start, verdict
from cluster_side.modalities.ptychography.engines.backend import numpy_backend
from cluster_side.modalities.ptychography.reconstruction import Means, Reconstruction
from cluster_side.modalities.ptychography.scan import scan_of
from cluster_side.modalities.ptychography.spec import PtychographySettings
from cluster_side.modalities.ptychography.start import look_for_probe
from tests import ptycho_objects as objects
from tests import ptycho_pictures as pictures

LIKE, SHARE = 0.5, 0.95
"""Above which Fourier ring correlation with the true object, up to 0.1 cycles per pixel, in means of three rings, an object is
right; the share of verdicts that must be right."""
RESULT = pathlib.Path(__file__).parents[1] / "docs" / "proofs" / "ptycho_verdicts.json"
SHORT = "RAAR 2 -> LSQML 1"
CASES = ("right", "unknown", "distance", "flipped", "short")
FAR = (objects.airy, objects.gaussian, objects.zone_plate, objects.before_focus, objects.mirrors, objects.pinhole)
OBJECTS = (
    *(objects.star, objects.cells, objects.weak, objects.absorber, objects.pillars),
    *(objects.gradient, objects.grating, objects.dots, objects.tissue, objects.circuit),
)
FROM_ELSEWHERE = (pictures.photograph, pictures.fault, pictures.seabed, pictures.tomogram, pictures.emblem)
CHOSEN, JUDGED = (0, 1), (2, 3)
"""The parts that thresholds were chosen on, and those that judge them."""
CODE = (verdict, assessment, cross_validation, start)
Row = dict[str, Any]


def worlds(part: int) -> Iterator[objects.Sample]:
    """Return the scans of one part: each object once from afar, some of them near, with optics and doses of this part."""
    doses, steps = (
        ((1e5, 1e6, 3e4), (4.0, 5.0, 5.5)),
        ((3e5, 2e4, 1e5), (5.0, 4.5, 6.0)),
        ((8e4, 4e5, 1.5e5), (4.6, 5.3, 4.4)),
        ((2e5, 3.5e4, 6e5), (4.9, 4.3, 5.2)),
    )[part]
    every = OBJECTS + FROM_ELSEWHERE if part in JUDGED else OBJECTS
    for number, sample in enumerate(every):
        optics = FAR[(number + (0, 4, 2, 5)[part]) % len(FAR)]
        kinds = {"photons": doses[number % 3], "step": steps[(number + part) % 3], "jitter": 0.2 * (number % 4 == 3)}
        size = (48, 64)[(number + part) % 2]
        yield objects.simulate(sample, optics, size=size, side=(10, 9)[size == 64], seed=100 * part + number, **kinds)
    for number, sample in enumerate(every[part % 2 :: 2]):
        fresnel = (0.05, 0.02, 0.1)[(number + part) % 3]
        kinds = {"fresnel": fresnel, "photons": 10 ** (5 + number % 2), "seed": 100 * part + 50 + number}
        yield objects.simulate(sample, objects.diffuser, **kinds)


def siemens_star(folder: pathlib.Path) -> objects.Sample | None:
    """Return the measured star with its reference as the truth; None where there is no measured data."""
    file = folder / "ptychography" / "siemens-star-small.npz.bz2"
    if not file.is_file():
        return None
    with bz2.open(file) as opened:
        stored = np.load(opened)
        frames, scan, probe = stored["data"][0], stored["scan"][0].astype(float), stored["probe"][0, 0, 0, 0]
    reference = np.load(file.with_name("reference_rpie30.npz"))["object"]
    pixel = objects.KEV_M / objects.ENERGY * objects.DISTANCE / (frames.shape[-1] * objects.DETECTOR_PIXEL)
    return objects.Sample("measured star", reference, probe[None], scan - scan.min(axis=0), frames, pixel)


def run(world: objects.Sample, case: str, number: int) -> Row:
    """Reconstruct a world in one way; return the verdict, what it should be, and the figures."""
    wrong = {
        "distance": {"distance": objects.DISTANCE * (1.2, 0.8)[number % 2]},
        "flipped": {"flip": ((-1, 1), (1, -1))[number % 2]},
    }
    given = {"probe": {"kind": "former"}} if case != "unknown" else {}
    settings = PtychographySettings(
        **world.settings(**given, **wrong.get(case, {}), **({"recipe": SHORT} if case == "short" else {}))
    )
    probe = np.asarray(world.probe if world.probe.ndim == 3 else world.probe[None], np.complex64)
    means = Means(settings, Context(note=lambda _: None), numpy_backend(), probe)
    job = Reconstruction(means, scan_of(world.arrays(), settings, None))
    look_for_probe(job)
    state, now = job.solve(np.arange(len(job.scan.known)), live=False)
    judgement = verdict.judgement_on(job, state, now)
    found = datasets.reconstructed(job.scan, means.backend, state, now)
    likeness, ring = world.likeness(found), world.lowest_ring(found)
    right = case in ("right", "unknown") and ring > LIKE
    fine = {CONVERGED} if right else {NOT_CONVERGED, UNKNOWN} if case in ("right", "unknown") else {NOT_CONVERGED}
    return {
        "object": world.name,
        "field": "near" if world.fresnel else "far",
        "case": case,
        "verdict": judgement.verdict,
        "advice": judgement.advice,
        "right": judgement.verdict in fine,
        "likeness": round(likeness, 3),
        "ring": round(ring, 3),
        "error": round(float(state.errors[-1]), 5),
        **figures_in(judgement),
    }


def figures_in(judgement: verdict.Judgement) -> Row:
    """Return the figures of a verdict as they stand in a result, rounded."""
    found = {name.rpartition("/")[2]: value for name, value in verdict.judged(judgement).items() if value.dtype.kind == "f"}
    return {name: float(f"{float(value):.4g}") for name, value in found.items()}


def constants() -> Row:
    """Return the numbers and recipes that verdicts are made with."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in CODE
        for name, value in sorted(vars(module).items())
        if name.isupper() and isinstance(value, int | float | str)
    }


def study(found: list[tuple[int, objects.Sample]]) -> list[Row]:
    """Run all cases of some worlds, each with its part."""
    rows = []
    for number, (part, world) in enumerate(found):
        for case in CASES:
            rows.append({"part": part} | run(world, case, number))
            print(" ".join(str(value) for value in rows[-1].values()), flush=True)
    return rows


def summary(rows: list[Row]) -> Row:
    """Return how many verdicts are right, by part and by case, and the wrong ones."""
    right = [row["right"] for row in rows]
    table = {
        f"{what} {name}": f"{sum(good)}/{len(good)}"
        for what in ("part", "case", "field")
        for name in sorted({row[what] for row in rows})
        if (good := [fine for fine, row in zip(right, rows, strict=True) if row[what] == name])
    }
    half = [row["right"] for row in rows if row["part"] in JUDGED]
    wrong = [row for row in rows if row["case"] in ("distance", "flipped") or row["ring"] <= LIKE]
    return {
        "runs": len(rows),
        "objects": len({row["object"].partition("/")[0] for row in rows}),
        "right": table,
        "share_judged": round(float(np.mean(half or [0.0])), 4),
        "wrong_called_converged": [f"{row['object']} {row['case']}" for row in wrong if row["verdict"] == CONVERGED],
        "verdicts": dict(Counter(row["verdict"] for row in rows)),
        "not_right": [
            f"{row['object']} {row['case']}: {row['verdict']}" for fine, row in zip(right, rows, strict=True) if not fine
        ],
    }


def written(told: Row, rows: list[Row]) -> None:
    """Write the proof: one line a row."""
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    bars = {"ring_above": LIKE, "share_judged_at_least": SHARE, "wrong_called_converged": 0}
    head = json.dumps({"commit": commit, "bars": bars, "constants": constants(), **told}, indent=1)
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')


def main(arguments: list[str]) -> int:
    """Run the study, or three worlds of it."""
    folder = pathlib.Path(os.environ.get("BEAMTIDE_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
    found = [(part, world) for part in (*CHOSEN, *JUDGED) for world in worlds(part)]
    measured = siemens_star(folder)
    if "--first" in arguments:  # to choose thresholds by
        found = [one for one in found if one[0] in CHOSEN]
    elif "--short" in arguments:
        found = [one for one in found if one[0] in JUDGED][1:12:5]
    elif measured is not None:
        found.append((0, measured))
    else:
        print("no measured star: BEAMTIDE_TEST_DATA names no folder with ptychography/siemens-star-small.npz.bz2")
    rows = study(found)
    told = summary(rows)
    print(json.dumps(told, indent=1))
    if not arguments:
        written(told, rows)
    return 0 if told["share_judged"] >= SHARE and not told["wrong_called_converged"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
