"""Ptychographic reconstruction on arrays: engines, constraints, propagators, and the backend that they compute with."""
