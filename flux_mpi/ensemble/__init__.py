"""Ensembles: one command run for many members, spread over a hierarchy of instances."""
