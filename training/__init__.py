"""Trains decoders for frozen encoders, and measures how well they give pictures back."""
