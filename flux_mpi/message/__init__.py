"""Messages between clients, brokers and services: what they are and how they travel as bytes."""
