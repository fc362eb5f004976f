"""The renderer that draws Firefly's training pictures."""
