"""The gallery stores pictures, finds them, and proves that none is lost. It imports neither torch nor an interface."""
