"""The files of a scan in one pipeline, as a row of frames: shared by the source, and by workers that begin before a scan ends."""
