"""What the instance has to give out: discovery on each rank, and the record of it on rank 0."""
