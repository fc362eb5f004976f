"""Firefly: a small text-to-image model trained from nothing on paintings this package draws itself."""
