"""File names, folders and licences of the official checkpoints. Source: seed_vc spec, sections 0 and 18;
speaker_encoders spec, section 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from heartvoice.contracts.network_names import Network

TOKENIZER, GENERATION = "tokenizer.json", "gen_config.json"
"""In the weights folder itself."""
CAMPPLUS, RMVPE = "campplus/campplus_cn_common.bin", "rmvpe/rmvpe.pt"
ECAPA = "ecapa/embedding_model.ckpt"
WAVLM = "wavlm-base-plus-sv"
"""Folder of WavLM's files."""
SEED_VC, WHISPER, BIGVGAN = "seed-vc", "whisper-small", "bigvgan"
"""Folders of the converter's files."""
_SEED_VC_LICENCE = "GPL-3.0 (model card of Plachta/Seed-VC), which holds for graphs made from them, too"
_CAMPPLUS_LICENCE = "Apache-2.0 (3D-Speaker)"
LICENCES: Mapping[str, str] = {
    "svc_cfm": _SEED_VC_LICENCE,
    "svc_regulator": _SEED_VC_LICENCE,
    "svc_content": "Apache-2.0 (model card of openai/whisper-small)",
    "svc_style": _CAMPPLUS_LICENCE,
    "vocoder": "MIT (model card of nvidia/bigvgan_v2_44khz_128band_512x)",
    "f0": "MIT (model card of lj1995/VoiceConversionWebUI; the terms of its training data are unclear)",
}
"""By network, as the publishers state them."""
SPEAKER_LICENCES: Mapping[str, str] = {
    "campplus": _CAMPPLUS_LICENCE,
    "ecapa": "Apache-2.0 (model card of speechbrain/spkrec-ecapa-voxceleb)",
    "wavlm": "CC BY-SA 3.0, share-alike (UniSpeech's licence, to which the model card points); what is made from these "
    "weights is shared under the same terms, graphs included",
}
"""By engine of the speaker encoder, of those whose weights no wheel contains."""
ROFORMER_LICENCE = "unknown (no licence is stated for these weights; whoever pulls them answers for their use)"
HEARTMULA_LICENCE = "Apache-2.0 (heartlib's README of 20 January 2026: all model weights)"
DEMUCS_LICENCE = (
    "scientific use (not under the code's MIT licence, says its author in facebookresearch/demucs issue 327)"
)
SONG_LICENCE = "Apache-2.0 (heartvoice: trained on synthetic songs by train/demo)"
"""Of the preset `demo`'s trained networks."""
NAMES: Mapping[Network, str] = {
    "svc_cfm": "Seed-VC",
    "svc_regulator": "Seed-VC",
    "svc_content": "Whisper small",
    "svc_style": "CAMPPlus",
    "vocoder": "BigVGAN v2",
    "f0": "RMVPE",
}
"""By network, what the weights of `LICENCES` are published as."""


def licence_name(licence: str) -> str:
    """Return a licence without its remark or copyright line."""
    return licence.partition(" (")[0].partition(",")[0]
