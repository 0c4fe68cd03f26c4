"""What happens on a node: supervisor and spawner, the rank's agent, environment, binding, stdio.

Import the module you need: this one stays empty because the supervisor must not load the rest.
"""
