"""DualReal: one identity and one motion, learned together, fused while a video is sampled."""

__version__ = "0.1.0"
