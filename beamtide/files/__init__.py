"""The files of a scan in one pipeline as a sequence of frames; for the source, and for workers that begin before a scan ends."""
