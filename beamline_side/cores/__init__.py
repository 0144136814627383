"""Pure machines, one noun per file: events in, effects out, time as an argument."""
