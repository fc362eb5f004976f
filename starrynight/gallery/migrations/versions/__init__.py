"""One file for each step; its number is its revision."""
