"""For the authors of plug-ins: what Beamtide relies on, as functions that their tests call.

    from beamtide import testing

    testing.run_modality(MODALITY, {"spectra": spectra}, {"last": 7})       what a worker would compute
    testing.check_format(FORMAT, pathlib.Path("sample.txt"), frames=10)     whether a format keeps what the engine relies on
    testing.check_launcher("lineup", tmp_path)                              the same for a launcher that is installed
    testing.check_writer(write, tmp_path, read=read)                        the same for a writer
    testing.run_pipeline("mine.yaml", "scan_1", raw=tmp_path)               a whole pipeline in this process, on files

A check raises AssertionError, and says what is otherwise than it should be. Each function is an entry point of the group
"beamtide.testing": it belongs to the side that it tries, and this package imports neither.
"""

from typing import Any

from beamtide import registry


def __getattr__(name: str) -> Any:
    if name in registry.names("testing"):
        return registry.find("testing", name)
    raise AttributeError(f"beamtide.testing has no {name!r}; there are: {', '.join(registry.names('testing'))}")


def __dir__() -> list[str]:
    return list(registry.names("testing"))
