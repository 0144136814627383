"""The writer: follows the sink, and writes what is complete."""
