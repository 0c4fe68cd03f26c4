"""Formats: parse, validate and print what crosses doors. No I/O, no clocks, no other room.

Each module names the RFC (https://flux-framework.readthedocs.io/projects/flux-rfc) it follows.
Nothing is imported here, and no module imports `typing` or `dataclasses` when it is loaded: every
command pays for what its formats import (those two cost 6 and 10 ms of an 80 ms budget).
"""
