"""The interface of a modality: a light half that describes it and a heavy half that computes.

`spec.py` makes one `Modality` in milliseconds (settings model, outputs, name of the kernel). `kernel.py` is imported only by
the process that computes: its `load(settings, calibration)` returns one array function. Where building it is costly, a third
function `prepare(settings, calibration)` makes plain arrays of it, once for given settings, and `load` gets them too. A modality
is found by the entry point group "beamtide.modalities"; its author's tests run it with `beamtide.testing.run_modality`.
"""

import importlib
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from beamtide import units
from beamtide.errors import BadInput
from beamtide.messages.results import DatasetHeader, Merge, Per
from cluster_side.modalities.readings import Reading, in_units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from beamtide.config.models import SourceConfig

    Arrays: TypeAlias = Mapping[str, NDArray[Any]]

Kernel: TypeAlias = "Callable[..., Arrays]"
"""Frames of one task in, datasets out. The first axis of every input array, and of every per-index output, is the index.

A kernel may also return an output that the spec did not foresee by exact name: an `Output` whose name ends in "*" stands for all
names that begin so ("area/*" for "area/Fe_K"); the first that fits counts. A per-index row of NaN says "no value here".
"""


Keep: TypeAlias = "Callable[[Callable[[], Arrays]], Arrays]"
"""Returns the result of a function: from the cache, or computed now."""


class SettingsModel(BaseModel):
    """Settings of a modality: frozen, unknown keys refused, every field described."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Output:
    """A dataset that a kernel returns: its unit, and how the parts of several tasks become one."""

    name: str
    units: str
    per: Per = "index"
    merge: Merge = "rows"
    long_name: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Kept beside it in the file, which acts on some: `show` "first": viewers open on it; `axis`, `axes`: its axes."""
    like: str = ""
    """The dataset of another pipeline whose unit it has; then `units` is only what stands where that is not known."""
    text: bool = False
    """Whether it is a sentence: bytes of UTF-8 (numpy kind "S", one), per scan, which everybody reads in its header as well."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A calibration file explained for people: facts in order, what is ignored, and what is wrong."""

    facts: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    picture: "NDArray[Any] | None" = None
    """8-bit colours (row, column, 3): an image of its use on a sample."""


@dataclass(frozen=True, slots=True)
class Modality:
    """The light half. `kernel` is "package.module:function"; `needs` lists the calibration files that it requires."""

    name: str
    settings: type[SettingsModel]
    outputs: "Callable[[Any], tuple[Output, ...]]"
    """Settings in, declarations of the datasets out."""
    kernel: str
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("numpy",)
    """Python distributions whose versions are written into the provenance."""
    context: bool = False
    """Whether the kernel takes a second argument, the `Context` that it computes in (see `context`)."""
    follows: bool = False
    """Whether its kernel can begin before its scan has ended (`Context.feed`)."""
    whole_scan: bool = False
    """Whether a task must be a whole scan, because its parts would not make one result."""
    prepare: str = ""
    """A function, named like the kernel: settings and calibration in, plain arrays out, the same for the same input."""
    layout: int = 1
    """Version of the layout of the prepared arrays: raise it when that changes, so that no worker uses older ones."""
    takes: "Callable[[Any], Mapping[str, str]]" = lambda _: {}
    """Settings in, the units that datasets of other pipelines must have for them."""
    files: str = ""
    """A light function, named like the kernel: role and path of a calibration file in, names of the files it names out."""
    reads: "Callable[[Any], Mapping[str, Reading]]" = lambda _: {}
    """Settings in, how they take the columns of files out: in which units they are wanted."""
    explain: str = ""
    """A function, named like the kernel: settings, calibration and a sample file (or None) in, `Explanation` out."""
    explains: str = ""
    """The calibration file that it explains."""

    def check(self, values: Mapping[str, Any], calibration: Mapping[str, pathlib.Path]) -> None:
        """Raise BadInput for settings or calibration files that no worker could use: it is loaded here as a worker would."""
        self.validated(values)
        if missing := sorted(set(self.needs) - set(calibration)):
            raise BadInput(f"calibration.{missing[0]} is required by {self.name}")
        try:
            self.load(values, calibration)
        except ImportError:  # the heavy half is installed where workers run, not everywhere
            return

    def check_source(self, source: "SourceConfig") -> None:
        """Raise BadInput for a source whose tasks are not what this modality needs."""
        if source.begin_with is not None and not self.follows:
            raise BadInput(f"source.begin_with: {self.name} cannot begin before its scan has ended; leave it out")
        if self.whole_scan and source.kind == "files" and source.frames_per_task != "scan":
            raise BadInput(
                f"source.frames_per_task: {source.frames_per_task} would make many results of parts of a scan, and {self.name} "
                "needs all frames of it at once; set frames_per_task: scan"
            )

    def unit_of(self, values: Mapping[str, Any], dataset: str) -> str:
        """Return the unit of a dataset under these settings, "" if only a task knows it; BadInput if there is no such dataset."""
        declared = self.declared(values)
        try:
            output = find_output(declared, dataset)
        except KeyError:
            names = ", ".join(output.name for output in declared)
            raise BadInput(f"{self.name} makes no dataset {dataset!r} with its settings, only {names}") from None
        return "" if output.like else output.units

    def suits(self, values: Mapping[str, Any], given: Mapping[str, str]) -> None:
        """Raise BadInput for datasets of other pipelines that are in another unit than the settings say; "" is unknown."""
        for name, unit in self.takes(self.validated(values)).items():
            found = units.canonical(given.get(name, ""))
            if found and found != units.canonical(unit):
                raise BadInput(f"{name} is given in {found}, and the settings of {self.name} want {unit}; correct one of the two")

    def named(self, role: str, path: pathlib.Path) -> tuple[str, ...]:
        """Return the names of the files that a calibration file names, and that must travel with it."""
        return tuple(_function(self.files)(role, path)) if self.files else ()

    def in_units(self, values: Mapping[str, Any], arrays: "Arrays", stated: Mapping[str, str]) -> "Arrays":
        """Return columns in the units of the settings, where their files state others; BadInput where the two contradict."""
        return in_units(self.reads(self.validated(values)), arrays, stated)

    def load(
        self, values: Mapping[str, Any], calibration: Mapping[str, pathlib.Path], keep: Keep = lambda build: build()
    ) -> Kernel:
        """Validate the settings, import the heavy half and return the kernel. BadInput says what is wrong with either."""
        settings, loader = self.validated(values), _function(self.kernel)
        if not self.prepare:
            kernel: Kernel = loader(settings, calibration)
            return kernel
        kernel = loader(settings, calibration, keep(lambda: _function(self.prepare)(settings, calibration)))
        return kernel

    def explained(
        self, values: Mapping[str, Any], calibration: Mapping[str, pathlib.Path], sample: pathlib.Path | None
    ) -> Explanation:
        """Explain a calibration file under these settings; BadInput if this modality cannot."""
        if not self.explain:
            raise BadInput(f"{self.name} has no calibration file that could be checked")
        found: Explanation = _function(self.explain)(self.validated(values), calibration, sample)
        return found

    def declared(self, values: Mapping[str, Any]) -> tuple[Output, ...]:
        """Return the outputs under these settings."""
        return self.outputs(self.validated(values))

    def validated(self, values: Mapping[str, Any]) -> SettingsModel:
        """Return the settings as a model; BadInput names each key that is wrong."""
        try:
            return self.settings(**values)
        except ValidationError as error:
            found = [f"{'.'.join(map(str, one['loc'])) or 'settings'}: {one['msg']}" for one in error.errors()]
            raise BadInput(f"settings of {self.name}: {'; '.join(found)}") from error


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def find_output(declared: tuple[Output, ...], name: str) -> Output:
    """Return the declaration of a dataset, also by "*"; KeyError for a name that no spec foresaw."""
    for output in declared:
        if output.name == name or (output.name.endswith("*") and name.startswith(output.name[:-1])):
            return output
    raise KeyError(f"a kernel returned {name!r}, which its spec does not declare")


def checked(
    outputs: "Arrays", declared: tuple[Output, ...], length: int, given: Mapping[str, str] = MappingProxyType({})
) -> tuple[DatasetHeader, ...]:
    """Return a header for every output of a kernel for `length` indexes; BadInput when one is not what the spec says.

    A kernel may leave out what was declared, and may return nothing that was not. `given`: the units of other pipelines.
    """
    if not isinstance(outputs, Mapping):
        raise BadInput(f"the kernel returned {type(outputs).__name__}, not a mapping of names to arrays; correct the kernel")
    forms = {name: _declaration(declared, name) for name in outputs}
    forms = {name: replace(form, units=given.get(form.like, form.units)) if form.like else form for name, form in forms.items()}
    return tuple(_header(name, array, forms[name], length) for name, array in outputs.items())


def run(
    modality: Modality, frames: "Arrays", settings: Mapping[str, Any], calibration: Mapping[str, pathlib.Path] | None = None
) -> "Arrays":
    """Run a modality on the arrays of one task, as a worker would: for its author's tests and for notebooks.

    First axis of all arrays: index. BadInput: a setting, calibration file or array cannot be used, or what the kernel returns is
    not what the spec declares.
    """
    lengths = {len(array) for array in frames.values()}
    if len(lengths) != 1:
        raise BadInput(f"the arrays of a task must have one length, not {sorted(lengths)}")
    kernel = modality.load(settings, calibration or {})
    outputs = kernel(frames, _alone()) if modality.context else kernel(frames)
    checked(outputs, modality.declared(settings), lengths.pop())
    return outputs


def _alone() -> Any:
    from cluster_side.modalities.context import ALONE  # it loads numpy, which a spec does without

    return ALONE


def sendable(outputs: "Arrays") -> "Arrays":
    """Return outputs as they travel and are kept: sentences as their bytes, one after the other."""
    return {name: array.reshape(1).view("u1") if array.dtype.kind == "S" else array for name, array in outputs.items()}


def _declaration(declared: tuple[Output, ...], name: str) -> Output:
    try:
        return find_output(declared, name)
    except KeyError as error:
        raise BadInput(str(error.args[0])) from error


def _header(name: str, array: "NDArray[Any]", output: Output, length: int) -> DatasetHeader:
    if not hasattr(array, "dtype"):
        raise BadInput(f"output {name} is {type(array).__name__}, not an array; correct the kernel")
    if array.dtype.kind not in "biufc" and not (output.text and array.dtype.kind == "S" and array.size == 1):
        raise BadInput(f"output {name} has dtype {array.dtype}; a dataset holds numbers")
    if (output.per == "index") != (output.merge == "rows"):
        raise BadInput(f"output {name} is declared per {output.per} with merge {output.merge!r}; rows belong to indexes only")
    if output.per == "index" and array.shape[:1] != (length,):
        raise BadInput(f"output {name} has shape {array.shape} for {length} indexes; its first axis must be the index")
    if output.per == "index" and array.size == 0 < length:
        raise BadInput(f"output {name} has shape {array.shape}: no number for any index; leave it out where there is nothing")
    says = {"text": bytes(array.reshape(-1)[0]).decode()} if output.text else {}
    below = output.long_name and f"{name.rpartition('/')[2]} {output.long_name}"
    return DatasetHeader(
        name=name,
        units=output.units,
        per=output.per,
        merge=output.merge,
        long_name=output.long_name if output.name == name else below,
        attributes=dict(output.attributes) | says,
    )
