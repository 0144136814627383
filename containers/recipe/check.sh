#!/bin/sh
# What every image of ours must be able to do; runs inside it (%test, and `beamtide image check`).
#   check.sh MODULE…            modules that must import
set -eu
home=/opt/beamtide
test -s "$home/lock" || { echo "the image has no lock file at $home/lock: build it again with beamtide image build"; exit 1; }
if "$home/bin/python" -c 'import pip' 2>/dev/null || command -v gcc >/dev/null; then
  echo "build tools were left in the image"; exit 1
fi
for module in beamtide zmq h5py numpy "$@"; do
  "$home/bin/python" -c "import $module" || { echo "the image cannot import $module"; exit 1; }
done
"$home/bin/beamtide" --version
