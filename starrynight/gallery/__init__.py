"""Where pictures hang. This room knows files and names; it knows nothing of torch, models or doors."""
