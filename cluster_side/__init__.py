"""The cluster side: what lives briefly, near the processors."""
