"""Benchmarks: ``make bench``, or ``python -m benchmarks`` from the top of a checkout."""
