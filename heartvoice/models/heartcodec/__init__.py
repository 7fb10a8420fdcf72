"""HeartCodec: codes to latents by flow matching, latents to audio by a scalar codec.

`codec` has the whole network; `windows` and `solver` have the arithmetic around it and import no torch.
"""
