"""A job: the slots of one allocation, and the worker processes that fill them."""
