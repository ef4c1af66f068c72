"""Effects of a hierarchy: found in the model graph, mapped to easy coordinates, learned."""
