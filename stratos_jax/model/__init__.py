"""The decoder network: architecture, parameters, names, attention, forward pass. Importing this loads no jax."""
