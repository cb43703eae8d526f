"""Fault matrix of the filter node: stand-ins for base, policy and learner, faults, and checks at the command input."""
