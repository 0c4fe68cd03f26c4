"""The tree that joins an instance's brokers, and the transports that carry it."""
