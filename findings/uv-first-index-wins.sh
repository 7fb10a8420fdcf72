#!/usr/bin/env bash
# With two indexes uv installs the poorer of two wheels of one version, because its index comes first.
#
# Expected: `--index-strategy unsafe-best-match` compares what all indexes have, so of two wheels of one version it takes
# the one that fits the platform best, as pip does with --extra-index-url.
# Seen with uv 0.13.9 and pip 26.1: only versions are compared over indexes. If the first index has soundfile's wheel for
# any platform, uv installs that one. It has no libsndfile, and the import fails; pip installs the wheel for Linux, which
# brings it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PIP_FIND_LINKS
python=${PYTHON:-python3}
mkdir -p index/soundfile
"$python" -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check pip==26.1 uv==0.13.9
tools/bin/pip download --quiet --no-deps --only-binary :all: --platform any --dest index/soundfile soundfile==0.13.1
name=$(basename index/soundfile/*.whl)
echo "<a href=\"$name\">$name</a>" > index/soundfile/index.html
echo "$(tools/bin/uv --version | cut -d' ' -f1-2), $(tools/bin/pip --version | cut -d' ' -f1-2), first index: $name"

brings_libsndfile() { [ -n "$(find "$1" -name 'libsndfile*')" ] && echo yes || echo no; }

"$python" -m venv by_uv
tools/bin/uv pip install --quiet --no-cache --python by_uv/bin/python --index-strategy unsafe-best-match \
    --index "file://$folder/index" --no-deps soundfile==0.13.1
"$python" -m venv by_pip
tools/bin/pip --python by_pip/bin/python install --quiet --disable-pip-version-check \
    --extra-index-url "file://$folder/index" --no-deps soundfile==0.13.1
uv_has=$(brings_libsndfile by_uv) pip_has=$(brings_libsndfile by_pip)
echo "libsndfile installed: by uv $uv_has, by pip $pip_has"
[ "$uv_has $pip_has" = "no yes" ]
