#!/bin/sh
# A root folder to build images from where no registry can be reached: the smallest Debian with Python, from the package mirror.
#   base.sh FOLDER [SUITE [MIRROR]]      as root; needs debootstrap
set -eu
folder=${1:?folder} suite=${2:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
mirror=${3:-$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n 1)}
test ! -e "$folder" || { echo "$folder is there already"; exit 2; }
debootstrap --variant=minbase --include=python3 "$suite" "$folder.part" "$mirror"
rm -rf "$folder.part"/dev/* "$folder.part"/var/cache/apt/* "$folder.part"/var/lib/apt/lists/*
mv "$folder.part" "$folder"
