"""Which resources a request gets: the scheduler interface, and the bitmap door behind it."""
