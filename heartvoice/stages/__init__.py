"""Stages: every loop and state of the pipeline as plain Python over an engine; no Triton here."""
