#!/usr/bin/env bash
# A list of numbers in a C2PA assertion is read back as base64 text of its values modulo 256; fractions are gone.
#
# Expected: an assertion is JSON; what is signed is what a reader gives back.
# Seen with c2pa-python 0.38.1: `Reader.json` takes any list of numbers for bytes. [1, 2, 3] is read as "AQID",
# [1, 2, 300] as "AQIs", whose last byte is 44, and [1.5] as an empty text. Lists of texts and single numbers stay as
# they are. So counts and measures have to be written one by one, or as text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python=${PYTHON:-python3}
"$python" -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check c2pa-python==0.38.1 cryptography==50.0.2
environment/bin/python - <<'PY'
import datetime
import io
import json
import struct
from importlib.metadata import version

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LABEL = "org.example.lists"
GIVEN = {"small": [1, 2, 3], "large": [1, 2, 300], "fractions": [1.5], "texts": ["a", "b"], "number": 300}


def signer() -> c2pa.Signer:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("leaf", "root")]
    root = ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
         "encipher_only", "decipher_only"), False,
    )
    leaf = (
        x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        .sign(root, hashes.SHA256())
    )
    pems = leaf.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", *pems, None))


samples = bytes(9600)
wave = b"WAVE" + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 48_000, 96_000, 2, 16) + b"data"
source = io.BytesIO(b"RIFF" + struct.pack("<I", 36 + len(samples)) + wave + struct.pack("<I", len(samples)) + samples)
signed = io.BytesIO()
action = {"action": "c2pa.created", "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCreation"}
builder = c2pa.Builder(
    {
        "claim_generator_info": [{"name": "example", "version": "1"}],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": LABEL, "data": GIVEN},
        ],
    }
)
builder.sign(signer(), "audio/wav", source, signed)
signed.seek(0)
store = json.loads(c2pa.Reader("audio/wav", signed).json())
manifest = store["manifests"][store["active_manifest"]]
found = next(each["data"] for each in manifest["assertions"] if each["label"] == LABEL)
print(f"c2pa-python {version('c2pa-python')}")
for name, given in GIVEN.items():
    print(f"signed {json.dumps(given)}, read {json.dumps(found[name])}")
assert found == GIVEN | {"small": "AQID", "large": "AQIs", "fractions": ""}, found
PY
