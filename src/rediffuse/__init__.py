"""Rediffuse: real images go part of the way into noise and a diffusion model brings them back changed."""

__version__ = "0.1.0"
