"""How an instance comes up, under every launcher, and how it goes down."""
