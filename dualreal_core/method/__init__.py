"""DualReal itself: adapters of identity and motion, the StageBlender between them, and how both act in a DiT."""
