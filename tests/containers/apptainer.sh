#!/usr/bin/env bash
# A real Apptainer for the tests, in one folder, nothing installed system-wide but what its images need to be made and mounted:
# the package of Debian's newest suite with that suite's C library beside it, since stable suites have none.
#   apptainer.sh FOLDER        then: PATH=FOLDER/usr/bin:$PATH
# Exit code 3 and one sentence: it cannot be had here.
set -euo pipefail
cannot() { echo "no Apptainer for the tests: $1"; exit 3; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || cannot "this is no Debian"
[[ $(id -u) == 0 ]] || cannot "only root may install the packages that it needs"
dir=$(mkdir -p "${1:?folder}" && cd "$1" && pwd)
tools=(patchelf squashfs-tools squashfuse fuse-overlayfs uidmap fakeroot debootstrap)
if ! dpkg -s "${tools[@]}" >/dev/null 2>&1; then
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${tools[@]}"; } >"$dir/apt.log" 2>&1 \
    || cannot "its tools could not be installed (see $dir/apt.log)"
fi
[[ -x $dir/usr/bin/apptainer ]] && exit 0
work=$dir/packages lib=usr/lib/$(uname -m)-linux-gnu
mkdir -p "$work/lists/partial" "$work/x"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
{ "${apt[@]}" update && (cd "$work" && "${apt[@]}" download apptainer libc6 libseccomp2 libsqlite3-0); } >>"$dir/apt.log" 2>&1 \
  || cannot "its package could not be fetched (see $dir/apt.log)"
for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/x"; done
mkdir -p "$dir"/{lib,usr/bin,usr/etc,usr/lib/etc,usr/var/lib/apptainer/mnt/session,usr/lib/var/lib/apptainer/mnt/session,"$lib"}
cp -a "$work/x/$lib/apptainer" "$dir/$lib/"
cp -a "$work/x/etc/apptainer" "$dir/usr/etc/"
cp -a "$work/x/etc/apptainer" "$dir/usr/lib/etc/"
libraries='ld-linux-*.so.* libc.so.6 libm.so.6 libresolv.so.2 libpthread.so.0 libdl.so.2 libnss_files.so.2 libnss_dns.so.2 libseccomp.so.2* libsqlite3.so.0*'
set -f
for name in $libraries; do find "$work/x" -name "$name" -exec cp -aL {} "$dir/lib/" \; ; done
set +f
cp -a "$work/x/usr/bin/apptainer" "$dir/usr/bin/apptainer.new"
loader=$(ls "$dir"/lib/ld-linux-*.so.* | head -n 1)
for elf in "$dir/usr/bin/apptainer.new" "$dir/$lib/apptainer/bin/starter"; do
  patchelf --force-rpath --set-interpreter "$loader" --set-rpath "$dir/lib" "$elf"
done
# the root of a virtual machine may lack a capability; then its containers must not ask for all of them
sed -i 's/^root default capabilities = full/root default capabilities = file/' "$dir"/usr/{etc,lib/etc}/apptainer/apptainer.conf
mv "$dir/usr/bin/apptainer.new" "$dir/usr/bin/apptainer"
"$dir/usr/bin/apptainer" --version >/dev/null || { rm "$dir/usr/bin/apptainer"; cannot "it does not start here"; }
