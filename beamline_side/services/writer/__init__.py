"""The writer: follows the sink, and writes result files."""
