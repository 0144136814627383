"""How many jobs each pipeline should have, and when to ask for them: pure decisions."""
