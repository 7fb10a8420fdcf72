"""seed-vc's singing networks: content encoder, length regulator and flow estimator.

`build` makes them by their sizes and imports no torch. Source: seed_vc spec. This is written from the specification; it
contains none of the original's code.
"""
