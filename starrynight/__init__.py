"""Starry Night 璀璨星河: an AI gallery that never hands you a black picture, and shows what every number format costs.

Importing the package imports nothing heavy: torch and diffusers arrive only when a picture is painted.
"""

__version__ = "0.1.0"
