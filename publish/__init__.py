"""Publishes artifacts: in a hub of your own, on Kaggle Models, on Hugging Face."""
