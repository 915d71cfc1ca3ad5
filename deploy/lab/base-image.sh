#!/usr/bin/env bash
# Makes a base image for deploy/Dockerfile where no registry can be reached: Debian with Python, from Debian's own mirror.
#
#   deploy/lab/base-image.sh [NAME]       # default felix-base:bookworm; needs root, Docker, debootstrap; some 40 s
#   docker build --build-arg BASE_IMAGE=felix-base:bookworm ...
#
# SUITE and MIRROR are those of debootstrap. The image trusts the certificates that this machine trusts: the build
# reaches apt and PyPI by the same way as this machine does.
set -euo pipefail
name=${1:-felix-base:bookworm}
suite=${SUITE:-bookworm}
packages=python3,python3-venv,ca-certificates

docker=${DOCKER:-docker}
for program in debootstrap "$docker"; do
  command -v "$program" >/dev/null || { echo "$program not found: apt-get install debootstrap docker.io" >&2; exit 1; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$folder/root
debootstrap --variant=minbase --include="$packages" "$suite" "$root" ${MIRROR:+"$MIRROR"} >"$folder/log" 2>&1 ||
  { tail -20 "$folder/log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
  "$root"/usr/share/{doc,man,locale,info}/*
# dpkg keeps to this for what is installed later, as the slim images of the registry do.
printf 'path-exclude /usr/share/%s/*\n' doc man locale info >"$root/etc/dpkg/dpkg.cfg.d/slim"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
tar -C "$root" --sort=name -c . | "$docker" import \
  -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'ENV LANG=C.UTF-8' -c 'CMD ["bash"]' \
  - "$name" >/dev/null
"$docker" image inspect --format '{{.RepoTags}} {{.Size}} bytes' "$name"
