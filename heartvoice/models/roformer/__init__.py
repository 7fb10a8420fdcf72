"""BS-RoFormer and MelBand-RoFormer, separators of vocals or several stems."""
