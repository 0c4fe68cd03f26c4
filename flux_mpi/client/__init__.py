"""What a program outside the brokers uses: a connection, jobs, executors, warm workers.

Nothing in here imports mpi4py, numpy or numba, so a client starts in the time Python does.
"""
