#!/bin/sh
# The recipe that all our images share: what stands in the lock file, from a folder of wheels, without the network.
#   install.sh WHEELS LOCK      both inside the image; LOCK is copied to /opt/beamtide/lock
set -eu
wheels=$1 lock=$2 home=/opt/beamtide
python3 -m venv --without-pip "$home"
# pip runs from its own wheel and never becomes part of the image
pip() { "$home/bin/python" "$(echo "$wheels"/pip-*.whl)/pip" --no-cache-dir --disable-pip-version-check "$@"; }
pip install --quiet --no-index --find-links "$wheels" --no-deps --requirement "$wheels/names.txt"
cp "$lock" "$home/lock"
# Compiled loops, where they could be made on the machine that builds; without them the same is computed in NumPy
if [ -d "$wheels/native" ]; then
  cp -r "$wheels/native" "$("$home/bin/python" -c 'from cluster_side.modalities import native; print(native.BUILT)')"
fi
# Whoever builds, everybody must be able to read it
chmod -R a+rX "$home"
# What no worker needs: tests and examples of libraries, static libraries, manual pages
find "$home/lib" -type d \( -name tests -o -name test -o -name examples \) -prune -exec rm -rf {} +
find "$home/lib" -name '*.a' -delete
rm -rf /usr/share/doc /usr/share/man /usr/share/locale /var/cache/apt /var/lib/apt/lists /root/.cache
# Byte code is made now: the image is read-only later, and every start would pay for it again
"$home/bin/python" -m compileall -q -j 0 "$home/lib" >/dev/null || true
mkdir -p /beamtide
