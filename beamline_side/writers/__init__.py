"""Writes results: HDF5/NeXus, CXI, TIFF, JPEG."""
