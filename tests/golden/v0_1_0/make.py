"""Makes the golden data of version 0.1.0: spools with work still in them, and one result file of each modality.

Run once, with the code of 0.1.0: `PYTHONPATH=<checkout of 0.1.0> python make.py FOLDER`. All inputs are made here.

FOLDER/site      a site of two pipelines (encoders, xrd) with its raw files; all roots are relative to the site file
FOLDER/spool     the spools of its services after a real run that was stopped: copy them to site/state/spool to go on
FOLDER/results   one file of each modality, written by `beamtide run`
FOLDER/expected.json   what must be read from all that; what is told there of services, they told before they were stopped

Scan golden_a has six lines of six points. encoders: lines 0 to 3 are done, the worker of line 4 was lost once and a second one
holds it, line 5 waits. xrd: line 0 is in the sink (its payload in a segment), line 1 was given up and is a dead letter, line 2
failed once and waits, line 3 waits in the sorter for line 2, lines 4 and 5 wait for encoders/i0. The tasks of scan golden_b are
in the distributor only; those of xrd are cancelled there.
"""

import contextlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import msgspec
import numpy as np
import yaml
from beamline_side.cores.file_tasks import bound, plan

import beamtide
from beamline_side.hosts import embedded
from beamline_side.hosts.process import PARENT
from beamtide import clock, site
from beamtide.client import Client
from beamtide.config import Deployment
from beamtide.files.watch import FileWatch
from beamtide.messages import Ok
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.scaling import GaugeRequest, SorterGauge
from beamtide.messages.tasks import Lease, LeaseRequest, Task, TaskFailed
from beamtide.pump import Caller

SIDE = 6
"""Lines of the spools' scan, and points of a line."""
SCAN_A = Scan(id=ScanId("golden_a"), shape=(SIDE, SIDE), axes=("sy", "sx"), info={"title": "golden data", "energy": "18000"})
SCAN_B = Scan(id=ScanId("golden_b"), shape=(1, SIDE), axes=("sy", "sx"))
SCAN = Scan(id=ScanId("golden_1"), shape=(4, 5), axes=("sy", "sx"), info={"title": "golden data", "sample": "made by make.py"})
BAD = 1
"""The line whose frames are no frames."""
PIXELS = 16
RING = 5.0
"""Radius in pixels of the only ring."""
PONI = """\
poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 0.0002, "pixel2": 0.0002, "max_shape": [16, 16], "orientation": 3}
Distance: 0.01
Poni1: 0.0016
Poni2: 0.0016
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 6.888e-11
"""
PEAKS = {"Fe": (6.40, 7.06), "Cu": (8.04, 8.90)}
CHANNELS, GAIN = 256, 0.04
ENCODERS: dict[str, Any] = {
    "axes": {"x": {"field": "x", "units": "um", "resolution": 0.001}, "y": {"field": "y", "units": "um", "resolution": 0.001}},
    "extra": {"i0": {"field": "i0", "units": "A", "scale": 1e-9}},
}
XRD: dict[str, Any] = {
    "points": 56,
    "cake": 20,
    "unit": "q_nm^-1",
    "rois": {"ring": [6, 12]},
    "normalise_to": "encoders/i0",
    "normalise_reference": 1e-7,
}
SPOOLS = ("metadata", "distributor", "sink", "buffer.encoders", "sorter.encoders", "buffer.xrd", "sorter.xrd")
SERVICES = ("topology", "fence", *SPOOLS)


def main(target: pathlib.Path) -> None:
    """Make everything below `target`, which keeps its scripts."""
    if beamtide.__version__ != "0.1.0":
        raise SystemExit(f"this is Beamtide {beamtide.__version__} ({beamtide.__file__}); golden data of 0.1.0 are made by 0.1.0")
    for name in ("site", "spool", "results"):
        shutil.rmtree(target / name, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        files = results_of_all(pathlib.Path(folder), target / "results")
    spool_site(target / "site")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder) / "site"
        shutil.copytree(target / "site", work)
        services = spools(site.load(work / "site.yaml"))
        keep_spools(work / "state" / "spool", target / "spool")
    found = {f"{key} {name}": one for key, part in (("services", services), ("results", files)) for name, one in part.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(one, sort_keys=True)}" for name, one in found.items()]
    (target / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


# --- inputs, made in code -------------------------------------------------------------------------------------------------


def write(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Write one raw file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def write_yaml(folder: pathlib.Path, files: dict[str, dict[str, Any]]) -> None:
    """Write the site file and its pipeline files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def ring_frames(brightness: Any, random: np.random.Generator) -> Any:
    """Return frames with one ring on a flat background, one for each brightness."""
    y, x = np.mgrid[:PIXELS, :PIXELS] - PIXELS / 2 + 0.5
    ring = np.exp(-(((np.hypot(x, y) - RING) / 1.2) ** 2))
    return random.poisson(20 + np.multiply.outer(brightness, ring)).astype(np.uint16)


def stage_columns(rows: int, columns: int, step: float, random: np.random.Generator) -> dict[str, Any]:
    """Return the counts (one is a nanometre) of two stage axes, x with three samples for each point, and a beam monitor."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    x = 1000 * step * column[:, None] + random.normal(0, 3, (rows * columns, 3))
    y = 1000 * step * row + random.normal(0, 3, rows * columns)
    return {"x": x, "y": y, "i0": random.normal(100, 2, rows * columns)}


# --- one result file of each modality -------------------------------------------------------------------------------------


def results_of_all(folder: pathlib.Path, target: pathlib.Path) -> dict[str, Any]:
    """Run a scan with all modalities, keep the files in `target`, and return what is in them."""
    options = inputs_of_all(folder)
    pipelines = pipelines_of_all(options)
    scaling = {"caps": {"jobs": 2, "node_hours_per_day": 24}, "tick": 0.3, "idle_exit": 1}
    roots = {"raw": "raw", "processed": "processed", "shared": "."}
    whole = {"site": "golden", "roots": roots, "state": "state", "pipelines": [f"{name}.yaml" for name in pipelines]}
    write_yaml(folder, {"site": whole | {"scaling": scaling, "spool": {"reserve": 1}}} | pipelines)
    deployment = site.load(folder / "site.yaml")
    end = clock.monotonic() + 120

    def in_time(_: object) -> None:
        assert clock.monotonic() < end, f"the scan is not done; see the logs in {deployment.site.state}"

    outcome = embedded.run_scan(deployment, SCAN, in_time)
    bad = {name: row for name, row in outcome.last.pipelines.items() if row.lost}
    assert not bad, bad
    target.mkdir(parents=True)
    for file in outcome.files:
        shutil.copyfile(file, target / file.name)
    assert sorted(path.stem for path in target.iterdir()) == sorted(pipelines), "a modality wrote no file, or more than one"
    read = beamtide.open(SCAN.id, processed=deployment.site.roots.processed)
    return {name: {"drawn": summary(read[name]), "rows": summary(read.rows(name))} for name in read}


def inputs_of_all(folder: pathlib.Path) -> dict[str, dict[str, str]]:
    """Write one raw file for each modality that has frames, and its calibration files; return the options of each source."""
    random, (rows, columns) = np.random.default_rng(1), SCAN.shape
    points = rows * columns
    stage = stage_columns(rows, columns, 0.4, random)
    stage["x"][7] = np.nan  # a lost trigger
    left = np.nan_to_num(stage["x"].mean(axis=1), nan=800.0)
    phase = np.linspace(0, 2 * np.pi, points)
    energy = GAIN * np.arange(CHANNELS)
    lines = {name: 0.9 * peak(energy, ka) + 0.1 * peak(energy, kb) for name, (ka, kb) in PEAKS.items()}
    iron, copper = 2000 + 500 * np.sin(phase), 900 + 300 * np.cos(phase)
    mean = 2 + np.multiply.outer(iron, lines["Fe"]) + np.multiply.outer(copper, lines["Cu"])
    spectra = random.poisson(mean[:, None, :] * np.array([0.6, 0.4])[:, None]).astype(np.uint16)
    y, x = np.mgrid[:12, :12]
    spots = [60 * np.exp(-((x - 5.5 - 0.5 * np.sin(a)) ** 2 + (y - 5.5 - 0.5 * np.cos(a)) ** 2) / 8) for a in phase]
    arrays = {
        "encoders": stage,
        "interferometer": {
            "ch1": stage["x"] + random.normal(0, 1, (points, 3)),
        },
        "counters": {"i0": stage["i0"], "diode": random.normal(500, 5, points), "exposure": np.full(points, 0.01)},
        "xbic": {"lx": 3 + np.cos(phase), "ly": 1 + np.sin(phase)},
        "dpc": {"frames": random.poisson(spots).astype(np.uint16)},
        "xrf": {"spectra": spectra, "dead_time_factor": np.full((points, 2), 1.02)},
        "xrd": {"frames": ring_frames(100 + 50 * np.sin(phase), random)},
        "ptychography": {"frames": diffraction(stage["y"], left, random)},
    }
    for name, found in arrays.items():
        write(folder / "raw" / f"{SCAN.id}_{name}.h5", found)
    (folder / "rings.poni").write_text(PONI)
    packaged = pathlib.Path(embedded.__file__).parents[1] / "sources" / "demo" / "sample.cfg"
    changes = {
        "Ca = K\nTi = K\n": "",
        "Zn = K\n": "",
        "gain = 0.01\n": f"gain = {GAIN}\n",
        "xmax = 1900": f"xmax = {CHANNELS - 10}",
        "xmin = 150": "xmin = 120",
        "linpolorder = 4": "linpolorder = 1",
        "scatterflag = 1": "scatterflag = 0",
    }
    text = packaged.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "sample.cfg").write_text(text)
    return {name: dict(zip(found, found, strict=True)) for name, found in arrays.items()}


def peak(energy: Any, centre: float) -> Any:
    """Return a Gaussian line with the area 1."""
    width = 0.07
    return GAIN / (width * math.sqrt(2 * math.pi)) * np.exp(-(((energy - centre) / width) ** 2) / 2)


def diffraction(y: Any, x: Any, random: np.random.Generator) -> Any:
    """Return the far field of a Gaussian probe on a smooth object at positions in nanometres; zero frequency in the corner."""
    size = 16
    pixel = 1e9 * (12.398e-10 / 8.0) * 1.0 / (size * 75e-6)  # nm; hc / energy x distance / width of the detector
    rows, columns = np.mgrid[:size, :size] - size / 2
    probe = 300 * np.exp(-(rows**2 + columns**2) / 14 + 0.05j * rows**2)
    waves = []
    for above, left in zip(y / pixel, x / pixel, strict=True):
        sample = np.exp(1j * np.sin(0.7 * (rows + above)) * np.cos(0.5 * (columns + left)))
        waves.append(np.fft.fft2(np.fft.ifftshift(probe * sample)) / size)
    return random.poisson(np.abs(np.array(waves)) ** 2).astype(np.int32)


def pipelines_of_all(options: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Return a pipeline of each modality, named like it."""
    settings: dict[str, dict[str, Any]] = {
        "encoders": ENCODERS,
        "interferometer": {
            "axes": {"x": {"field": "ch1", "resolution": 1.0}},
        },
        "counters": {
            "counters": {
                "i0": {"field": "i0", "units": "A", "gain": 1e-9, "dark": 0.5},
                "diode": {"field": "diode", "units": "1/s", "rate": True, "dark": 0},
            },
            "exposure": "exposure",
        },
        "xbic": {
            "units": "nA",
            "x": "lx",
            "y": "ly",
            "dark": [0.002, -0.001],
            "sensitivity": 0.05,
            "full_scale": 10,
            "preamp_gain": 1e6,
            "chopper_factor": 2.2214,
            "phase": 20,
            "normalise_to": "counters/i0",
            "normalise_reference": 1e-7,
        },
        "dpc": {"geometry": {"pixel_size": 75e-6, "distance": 3.2}, "disc": {"x": 5.5, "y": 5.5, "radius": 4}},
        "dpc_phase": {"photon_energy": 15.0},
        "positions": {
            "compare": {"x": {"first": "encoders/x", "second": "interferometer/x", "scale": 0.001}},
            "map": {"step": [0.4, 0.4], "datasets": {"iron": "xrf/area/Fe_K"}, "weights": "counters/i0", "fill": True},
        },
        "xrf": {"detectors": "all", "dead_time": True},
        "xrd": XRD | {"points": 16, "cake": 2},
        "ptychography": {
            "positions": ["encoders/y", "encoders/x"],
            "energy": 8.0,
            "distance": 1.0,
            "detector_pixel": 75.0,
            "centre": "corner",
            "modes": 2,
            "recipe": "RAAR 5 -> LSQML 5",
            "device": "cpu",
        },
    }
    inputs = {
        "xbic": ["counters/i0"],
        "xrd": ["encoders/i0"],
        "dpc_phase": ["dpc/angle_x", "dpc/angle_y", "dpc/sum", "encoders/x", "encoders/y"],
        "positions": ["encoders/x", "encoders/y", "interferometer/x", "xrf/area/Fe_K", "counters/i0"],
        "ptychography": ["encoders/y", "encoders/x"],
    }
    calibration = {"xrf": {"cfg": "sample.cfg"}, "xrd": {"poni": "rings.poni"}}
    found: dict[str, dict[str, Any]] = {}
    for name, values in settings.items():
        source: dict[str, Any] = {"kind": "scan"}
        if name in options:
            source = {"match": f"{{scan}}_{name}.h5", "format": "hdf5", "options": options[name]}
            source["frames_per_task"] = "scan" if name == "ptychography" else 10
        found[name] = {"pipeline": name, "modality": name, "source": source, "settings": values, "inputs": inputs.get(name, [])}
        found[name] |= {"calibration": calibration.get(name, {}), "write": ["hdf5"], "job": {"tasks_per_job": 1}}
        if name == "xrf":
            found[name]["positions"] = "encoders"
    return found


def summary(dataset: Any) -> dict[str, Any]:
    """Return what is compared of a dataset: what it is, how many values are missing, their sum, and the first that are there."""
    values = np.asarray(dataset.values)
    parts = np.stack([values.real, values.imag], axis=-1) if values.dtype.kind == "c" else values
    flat = np.ravel(parts).astype(np.float64)
    there = flat[~np.isnan(flat)]
    return {
        "units": dataset.units,
        "shape": list(values.shape),
        "dtype": values.dtype.str,
        "axes": list(dataset.axes),
        "axis_units": dict(dataset.coord_units),
        "missing": int(np.isnan(flat).sum()),
        "sum": float(np.abs(there).sum()),
        "first": [float(value) for value in there[:3]],
    }


# --- spools with work in them ---------------------------------------------------------------------------------------------


def spool_site(folder: pathlib.Path) -> None:
    """Write the site of the spools with its raw files; line BAD of xrd holds no frames."""
    random = np.random.default_rng(2)
    for scan in (SCAN_A, SCAN_B):
        rows, columns = scan.shape
        stage = stage_columns(rows, columns, 0.5, random)
        for row in range(rows):
            line = slice(row * columns, (row + 1) * columns)
            write(folder / "raw" / scan.id / f"stage_{row}.h5", {name: values[line] for name, values in stage.items()})
            frames = ring_frames(np.full(columns, 80.0 + 10 * row), random)
            bad = scan is SCAN_A and row == BAD
            write(folder / "raw" / scan.id / f"frames_{row}.h5", {"frames": frames[:, 0, 0] if bad else frames})
    roots = {"raw": "raw", "processed": "processed"}
    scaling = {"caps": {"jobs": 2, "node_hours_per_day": 24}, "tick": 0.2, "idle_exit": 2}
    whole = {"site": "golden", "roots": roots, "state": "state", "pipelines": ["encoders.yaml", "xrd.yaml"], "scaling": scaling}
    whole |= {"leases": {"ttl": 600, "beat": 1, "faults": 2}, "spool": {"reserve": 1}}
    stage_source = {"match": "{scan}/stage_*.h5", "format": "hdf5", "options": {"x": "x", "y": "y", "i0": "i0"}}
    frame_source = {"match": "{scan}/frames_*.h5", "format": "hdf5", "options": {"frames": "frames"}}
    encoders = {"pipeline": "encoders", "modality": "encoders", "source": stage_source, "settings": ENCODERS}
    xrd = {"pipeline": "xrd", "modality": "xrd", "source": frame_source, "settings": XRD, "inputs": ["encoders/i0"]}
    xrd |= {"calibration": {"poni": "rings.poni"}, "positions": "encoders"}
    write_yaml(folder, {"site": whole, "encoders": encoders, "xrd": xrd})
    (folder / "rings.poni").write_text(PONI)


@contextlib.contextmanager
def running(deployment: Deployment, *names: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run services of a site, each in a process of its own, and end them cleanly; who ends earlier is taken out by `stop`."""
    children = {name: started(deployment, name) for name in names}
    try:
        yield children
    finally:
        stop(children, *children)


def started(deployment: Deployment, name: str) -> subprocess.Popen[bytes]:
    """Start one service."""
    command = [sys.executable, "-m", "beamtide", "serve", name, "-c", str(deployment.file)]
    environment = os.environ | {PARENT: str(os.getpid())}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stop(children: dict[str, subprocess.Popen[bytes]], *names: str) -> None:
    """End services as a host does; a spool is closed then, and its log in the database."""
    for name in names:
        children[name].terminate()
    for name in names:
        assert children.pop(name).wait(20) == 0, f"{name} did not end cleanly"


def until(look: Callable[[], bool], what: str) -> None:
    """Look until something is so."""
    end = clock.monotonic() + 60
    while not look():
        assert clock.monotonic() < end, f"{what}: it never came"
        clock.pause(0.05)


def work(deployment: Deployment, pipeline: str) -> None:
    """Be a job of one worker that takes one task."""
    command = [sys.executable, "-m", "beamtide", "work", "-c", str(deployment.file), "--pipeline", pipeline]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "--tasks", "1", "--idle-exit", "60", "--job", "golden"], check=True, **quiet)


def tasks_of(client: Client, scan: Scan, pipeline: str) -> list[Task]:
    """Return the tasks of a scan as the source makes them; their settings are on the metadata server then."""
    settings = client.deployment.pipelines[pipeline]
    facts = FileWatch(client.deployment.site.roots.raw, scan.id, settings.source).look(clock.monotonic())
    digest = client.put_settings(settings)
    upstream = client.settings(digest).upstream
    return [bound(task, upstream) for task in plan(client.scans(scan.id)[0], settings, digest, facts, closed=True)]


def spools(deployment: Deployment) -> dict[str, Any]:
    """Let services run until their spools hold what they should, stop them, and return what they told."""
    with running(deployment, *SERVICES) as children, Client(deployment, patience=60) as client, Caller() as caller:
        for scan in (SCAN_A, SCAN_B):
            client.scan_started(scan)
        client.scan_ended(SCAN_A.id)
        encoders, xrd = (tasks_of(client, SCAN_A, name) for name in ("encoders", "xrd"))
        later = [*tasks_of(client, SCAN_B, "encoders"), *tasks_of(client, SCAN_B, "xrd")]

        def hold(pipeline: str, worker: str) -> Lease:
            question = LeaseRequest(worker=worker, job="golden", wait=10.0, host="node-1")
            return caller.ask(deployment.address(f"buffer.{pipeline}"), question, Lease, patience=20)

        def fail(pipeline: str, worker: str, cause: Any) -> Lease:
            lease = hold(pipeline, worker)
            told = {
                "worker": worker,
                "host": "node-1",
                "job": "golden",
                "trace": "Traceback: made up",
                "stderr": "its last words",
            }
            failed = TaskFailed(task=lease.task.id, attempt=lease.attempt, cause=cause, reason="made up", at=1.0, **told)
            caller.ask(deployment.address(f"buffer.{pipeline}"), failed, Ok)
            return lease

        def waiting(pipeline: str) -> int:
            return caller.ask(deployment.address(f"sorter.{pipeline}"), GaugeRequest(), SorterGauge).waiting

        client.submit(encoders)
        for _ in range(4):
            work(deployment, "encoders")
        assert fail("encoders", "worker-lost", "infra").task == encoders[4]
        held = hold("encoders", "worker-gone")
        assert (held.task, held.attempt) == (encoders[4], 2)
        client.submit(xrd[:1])
        work(deployment, "xrd")
        until(lambda: len(client.products(SCAN_A.id, "xrd")) == 1, "the first result in the sink")
        stop(children, "sorter.xrd")
        children["sorter.xrd"] = started(deployment, "sorter.xrd")  # so that what waits there lies in a segment of its own
        client.submit(xrd[BAD : BAD + 1])
        for _ in range(2):
            work(deployment, "xrd")
        until(lambda: len(client.dead_letters("xrd")) == 1, "the dead letter")
        client.submit(xrd[3:4])
        work(deployment, "xrd")
        client.submit(xrd[2:3])
        assert fail("xrd", "worker-bad", "fault").task == xrd[2]
        client.submit(xrd[4:])
        until(lambda: (client.gauge("xrd").ready, client.gauge("xrd").held) == (1, 2), "the tasks of xrd")
        until(lambda: [state.complete for state in client.products(SCAN_A.id)] == [24, 12], "the results in the sink")
        until(lambda: (waiting("encoders"), waiting("xrd")) == (0, 1), "what waits in the sorters")
        until(lambda: sum(tally.results for tally in client.status().tallies) == 6, "the verdicts at the distributor")
        letter, cake = client.dead_letter(xrd[BAD].id), client.fetch(SCAN_A.id, "xrd/azint2d/I")
        fetched = {"dataset": "xrd/azint2d/I", "start": cake.start, "stop": cake.stop, "holes": plainly(cake.holes)}
        gauges = {name: client.gauge(name) for name in deployment.pipelines}
        queued = {name: {"ready": one.ready, "held": one.held, "leased": one.leased} for name, one in gauges.items()}
        stop(children, "buffer.encoders", "buffer.xrd")
        client.submit(later)
        client.cancel(SCAN_B.id, "xrd", "the golden scan is cancelled")
        return {
            "queued": queued,
            "leases": {
                "encoders": [[held.task.id, 2, "worker-gone"], [encoders[5].id, 1, "worker-a"], [later[0].id, 1, "worker-b"]],
                "xrd": [[xrd[2].id, 2, "worker-a"]],
            },
            "held": [task.id for task in xrd[4:]],
            "tasks": {"worker-gone": plainly(held.task), "held": plainly(xrd[4])},
            "journal": {"encoders": [later[0].id], "xrd": [later[1].id, f"cancelled {SCAN_B.id}"]},
            "status": plainly(client.status().tallies),
            "letter": plainly(letter),
            "products": plainly(client.products()),
            "fetched": fetched | summary_of(cake.values),
            "scans": plainly(client.scans()),
            "settings": {digest: plainly(document) for digest, document in client.settings_list()},
            "digests": dict(site.settings_of(deployment)),
            "file": {"digest": client.settings(xrd[0].settings).calibration["poni"], "content": PONI},
        }


def plainly(value: Any) -> Any:
    """Return a message, or what it holds, in plain words."""
    if isinstance(value, msgspec.Struct):
        return {name: plainly(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: plainly(one) for name, one in value.items()}
    return [plainly(one) for one in value] if isinstance(value, tuple | list) else value


def summary_of(values: Any) -> dict[str, Any]:
    """Return what is compared of an array that was fetched."""
    there = values[~np.isnan(values)].astype(np.float64)
    first = [float(value) for value in there[:3]]
    return {
        "shape": list(values.shape),
        "missing": int(np.isnan(values).sum()),
        "sum": float(np.abs(there).sum()),
        "first": first,
    }


def keep_spools(spool: pathlib.Path, target: pathlib.Path) -> None:
    """Copy spools that are closed, without locks and the room that they keep free."""
    assert not [path for path in spool.glob("*-wal") if path.stat().st_size], "a log is not in its database"
    shutil.copytree(spool, target, ignore=shutil.ignore_patterns("*.lock", "*.reserve", "*-wal", "*-shm"))
    assert {path.stem for path in target.glob("*.sqlite")} == set(SPOOLS)
    segments = {path.parent.stem for path in target.glob("*.segments/*")}
    assert segments >= {"sink", "sorter.xrd"}, f"the large results are not in segments, only those of {segments}"


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
