"""The tests: folders mirror the rooms of flux_mpi."""
