#!/bin/sh
# Install a wheel of Starry Night into a new virtual environment, with the versions it is tested with. The Dockerfile
# runs this, and `make wheel`.
#
#   docker/install.sh starry_night-0.1.0-py3-none-any.whl FOLDER constraints.txt [TORCH]
#
# TORCH: cpu, cu128 or another index of download.pytorch.org, or "default" for pip's own index (a mirror, for instance).
# torch comes first and by its exact version: a looser wish may fetch gigabytes of CUDA, and the rest must not replace it.
set -eu
wheel=$1 folder=$2 constraints=$3 torch=${4:-default}
pip() { "$folder/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
exact=$(grep '^torch==' "$constraints")
python3 -m venv "$folder"
if [ "$torch" = default ]; then
  pip install "$exact"
else
  pip install --index-url "https://download.pytorch.org/whl/$torch" "$exact"
fi
pip install --constraint "$constraints" "$wheel"
"$folder/bin/starry" --version
