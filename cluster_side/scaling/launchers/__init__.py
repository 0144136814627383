"""Batch systems in three verbs: submit, phases, cancel."""
