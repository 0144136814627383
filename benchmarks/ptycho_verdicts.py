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

Worlds are in four parts: what a verdict asks and its thresholds were chosen on three of them and the measured star, the fourth
judges. Rows go to benchmarks/results/ptycho_verdicts.json. It fails if less than SHARE of the fourth part is right, or if a wrong
object is called converged anywhere.

    python -m benchmarks.ptycho_verdicts            all
    python -m benchmarks.ptycho_verdicts --first    the three parts to choose thresholds by
    python -m benchmarks.ptycho_verdicts --short    three worlds of the fourth
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
from cluster_side.modalities.ptychography import datasets
from cluster_side.modalities.ptychography.engines.backend import numpy_backend
from cluster_side.modalities.ptychography.reconstruction import Means, Reconstruction
from cluster_side.modalities.ptychography.scan import scan_of
from cluster_side.modalities.ptychography.spec import PtychographySettings
from cluster_side.modalities.ptychography.start import look_for_probe
from cluster_side.modalities.ptychography.verdict import judgement_on
from tests import ptycho_objects as objects

LIKE, SHARE = 0.5, 0.95
"""Above which Fourier ring correlation with the true object, in all rings up to 0.1 cycles per pixel, an object is right; the
share of verdicts that must be right."""
RESULT = pathlib.Path(__file__).parent / "results" / "ptycho_verdicts.json"
SHORT = "RAAR 2 -> LSQML 1"
CASES = ("right", "unknown", "distance", "flipped", "short")
FAR = (objects.airy, objects.gaussian, objects.zone_plate, objects.before_focus, objects.mirrors, objects.pinhole)
OBJECTS = (
    *(objects.star, objects.cells, objects.weak, objects.absorber, objects.pillars),
    *(objects.gradient, objects.grating, objects.dots, objects.tissue, objects.circuit),
)
JUDGED = 3
"""The part that thresholds were not chosen on."""
Row = dict[str, Any]


def worlds(part: int) -> Iterator[objects.Sample]:
    """Return the scans of one part: each object once from afar, some of them near, with optics and doses of this part."""
    doses, steps = (
        ((1e5, 1e6, 3e4), (4.0, 5.0, 5.5)),
        ((3e5, 2e4, 1e5), (5.0, 4.5, 6.0)),
        ((5e4, 2e5, 7e5), (4.5, 5.5, 5.0)),
        ((2.5e5, 6e4, 5e5), (5.2, 4.2, 4.8)),
    )[part]
    for number, sample in enumerate(OBJECTS):
        optics = FAR[(number + (0, 4, 5, 3)[part]) % len(FAR)]
        kinds = {"photons": doses[number % 3], "step": steps[(number + part) % 3], "jitter": 0.2 * (number % 4 == 3)}
        size = (48, 64)[(number + part) % 2]
        yield objects.simulate(sample, optics, size=size, side=(10, 9)[size == 64], seed=10 * part + number, **kinds)
    for number, sample in enumerate((OBJECTS[0::2], OBJECTS[1::2], OBJECTS[2::2], OBJECTS[1::3])[part]):
        fresnel = (0.05, 0.02, 0.1)[(number + part) % 3]
        yield objects.simulate(sample, objects.diffuser, fresnel=fresnel, photons=10 ** (5 + number % 2), seed=7 * part + number)


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
    judgement = judgement_on(job, state, now)
    found = datasets.reconstructed(job.scan, means.backend, state, now)
    likeness, ring = world.likeness(found), world.lowest_ring(found)
    right = case in ("right", "unknown") and ring > LIKE
    fine = {CONVERGED} if right else {NOT_CONVERGED, UNKNOWN} if case in ("right", "unknown") else {NOT_CONVERGED}
    figures = judgement.figures
    return {
        "world": world.name,
        "case": case,
        "likeness": round(likeness, 3),
        "ring": round(ring, 3),
        "right": judgement.verdict in fine,
        "verdict": judgement.verdict,
        "advice": judgement.advice,
        "error": round(float(state.errors[-1]), 5),
        "explained": round(figures.explained, 3),
        **{
            name: [round(float(one.ratio), 3), round(float(one.spread), 3)]
            for name, one in (("smaller", figures.smaller), ("larger", figures.larger), ("axes", figures.axes))
        },
        "falling": round(figures.falling, 4),
        "agreement": round(figures.agreement, 3),
        "rest": round(figures.rest, 3),
        "signal": round(figures.signal, 3),
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
        for what in ("part", "case")
        for name in sorted({row[what] for row in rows})
        if (good := [fine for fine, row in zip(right, rows, strict=True) if row[what] == name])
    }
    wrong = [row for row in rows if row["case"] in ("distance", "flipped") or row["ring"] <= LIKE]
    second = [fine for fine, row in zip(right, rows, strict=True) if row["part"] == JUDGED]
    return {
        "runs": len(rows),
        "right": table,
        "share_judged": round(float(np.mean(second or [0.0])), 4),
        "wrong_called_converged": [f"{row['world']} {row['case']}" for row in wrong if row["verdict"] == CONVERGED],
        "verdicts": dict(Counter(row["verdict"] for row in rows)),
        "not_right": [
            f"{row['world']} {row['case']}: {row['verdict']}" for fine, row in zip(right, rows, strict=True) if not fine
        ],
    }


def main(arguments: list[str]) -> int:
    """Run the study, or three worlds of it."""
    folder = pathlib.Path(os.environ.get("BEAMTIDE_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
    found = [(part, world) for part in range(JUDGED + 1) for world in worlds(part)]
    measured = siemens_star(folder)
    if "--first" in arguments:  # to choose thresholds by
        found = [one for one in found if one[0] != JUDGED]
    elif "--short" in arguments:
        found = [one for one in found if one[0] == JUDGED][1:12:5]
    elif measured is not None:
        found.append((2, measured))
    else:
        print("no measured star: BEAMTIDE_TEST_DATA names no folder with ptychography/siemens-star-small.npz.bz2")
    rows = study(found)
    told = summary(rows)
    print(json.dumps(told, indent=1))
    if not arguments:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"commit": commit, **told, "rows": rows}, indent=1) + "\n")
    return 0 if told["share_judged"] >= SHARE and not told["wrong_called_converged"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
