"""Effects of a hierarchy in the model graph, and coordinates in which they are easy."""
