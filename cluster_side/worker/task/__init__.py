"""One task of a worker: lease, inputs, kernel, result."""
