"""Exact sampling that starts from the approximation: transitions and NUTS."""
