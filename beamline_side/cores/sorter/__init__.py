"""The data sorter of a pipeline: stores results, and releases them in the order of their indexes."""
