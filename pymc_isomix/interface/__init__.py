"""The front: PyMC's classes, and the calls that users make."""
