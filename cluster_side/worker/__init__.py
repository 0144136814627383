"""A job on a node, and the one-task workers inside it."""
