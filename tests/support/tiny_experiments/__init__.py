"""Experiments for tests of sweeps: seconds long, and every start and end of one is a line in a log."""
