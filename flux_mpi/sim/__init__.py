"""Simulated machines: the real brokers under a virtual clock, without MPI and without processes."""
