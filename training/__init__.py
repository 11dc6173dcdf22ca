"""Trains decoders for frozen encoders, and measures their reconstructions."""
