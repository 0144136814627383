"""Result files: where they lie, what they contain, and whether it is what was written."""
