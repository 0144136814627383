"""Counters: scalers, ADC channels and beam position monitors."""
