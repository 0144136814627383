"""Result files: where they lie, what they contain, and whether they are unchanged."""
