"""Publishes artifacts that `build_encoder.py` made."""
