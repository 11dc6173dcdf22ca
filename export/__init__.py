"""From a module to a checked artifact: SavedModel, archive, manifest, card, diagram, checks."""
