"""The gallery stores pictures, finds them, and proves that none is lost. It never imports torch."""
