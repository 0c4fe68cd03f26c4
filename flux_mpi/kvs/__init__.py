"""The key-value store of an instance: hierarchical keys, atomic commits, versions and watches."""
