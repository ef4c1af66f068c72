"""Exact sampling from where the approximation stands: transitions, NUTS."""
