"""Train and evaluate the perceiver."""
