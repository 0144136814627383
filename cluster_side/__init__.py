"""The cluster side: short-lived jobs and workers near the processors, and the science."""
