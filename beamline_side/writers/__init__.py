"""What becomes of results: HDF5/NeXus, TIFF, JPEG."""
