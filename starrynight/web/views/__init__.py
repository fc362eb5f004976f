"""The four rooms, a file each. A room has ``show()``, and knows nothing of the others but their names."""
