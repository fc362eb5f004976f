"""Train, distil and evaluate Firefly."""
