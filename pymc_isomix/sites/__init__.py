"""Effects of a hierarchy: search in the model graph, map to easy coordinates, learning."""
