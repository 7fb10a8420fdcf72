"""The C2PA library, with everything switched off that would call the network for a stranger's file."""

from __future__ import annotations

from typing import Any

import c2pa


def offline(anchors: bytes = b"") -> c2pa.Context:
    """Return a context that never fetches, and trusts `anchors` (certificates as PEM) alone."""
    trust: dict[str, Any] = {"verify_trust_list": True}
    if anchors:
        trust["user_anchors"] = anchors.decode("ascii")
    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}
    return c2pa.Context.from_dict({"verify": verify, "trust": trust})
