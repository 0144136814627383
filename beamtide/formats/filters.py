"""The filters (compressions) of HDF5 datasets: there when they are needed, whoever imported what before.

HDF5 knows a few filters itself; those of detectors come with the package hdf5plugin, which registers them for one process. Each
process registers them here when it meets the first dataset that needs one.
"""

import h5py
from h5py import h5d, h5z

from beamtide.errors import BadInput

BITSHUFFLE, LZ4 = 32008, 32004
OWN = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF})
"""Filters of HDF5 and h5py that look at what they read: a damaged chunk makes them fail, and never crash."""
NAMES = {
    307: "BZIP2",
    BITSHUFFLE: "bitshuffle",
    LZ4: "LZ4",
    32001: "Blosc",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32018: "FCIDECOMP",
    32026: "Blosc2",
}


def filters_of(dataset: h5d.DatasetID) -> list[tuple[int, tuple[int, ...]]]:
    """Return number and parameters of each filter of a dataset, in the order in which they were applied."""
    kept = dataset.get_create_plist()
    found = (kept.get_filter(number) for number in range(kept.get_nfilters()))
    return [(number, tuple(values)) for number, _, values, _ in found]


def ensure(numbers: set[int], where: str) -> None:
    """Make filters known to HDF5 in this process; BadInput (naming `where`) for one that nobody here knows."""
    if all(h5z.filter_avail(number) for number in numbers):
        return
    try:
        import hdf5plugin
    except ImportError:
        pass
    else:
        hdf5plugin.register(force=False)  # again, if somebody took one away since it was imported
    unknown = sorted(number for number in numbers if not h5z.filter_avail(number))
    if unknown:
        name = f" ({NAMES[unknown[0]]})" if unknown[0] in NAMES else ""
        raise BadInput(
            f"{where} is compressed with HDF5 filter {unknown[0]}{name}, which is not known here; install hdf5plugin "
            "(pip install hdf5plugin), or write the file with bitshuffle-LZ4"
        )


def ensure_for(dataset: h5py.Dataset) -> None:
    """Make the filters of a dataset known; BadInput for one that nobody here knows."""
    ensure({number for number, _ in filters_of(dataset.id)}, f"{dataset.file.filename}: {dataset.name}")
