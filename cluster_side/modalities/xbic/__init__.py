"""X-ray beam induced current and voltage."""
