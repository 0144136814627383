"""Talk to the services of a site, and follow what they know: for scripts, notebooks and viewers."""
