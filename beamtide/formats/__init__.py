"""How frames lie in files. A format answers two questions: what is in this file, and give me these frames.

The beamline side asks the first (when is a file complete, which tasks does it hold), a worker the second. A format is found
by the entry point group "beamtide.formats".
"""
