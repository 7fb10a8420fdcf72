"""seed-vc's singing path: content encoder, length regulator and flow estimator; `build` makes them by their sizes.

`build` and `random` import no torch. Source: seed_vc spec. Written from that text; none of the original's code is here.
"""
