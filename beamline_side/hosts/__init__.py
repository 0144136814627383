"""Hosts run services: one service per process, or all services of a site on one machine."""
