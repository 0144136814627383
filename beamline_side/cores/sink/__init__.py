"""The sink: keeps the results of all products, answers requests for them, and deletes those that are in files."""
