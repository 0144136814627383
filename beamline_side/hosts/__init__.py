"""How services are kept alive: one process each, or all of them on a laptop."""
