#!/bin/sh
# Puts kube-apiserver, kubectl and etcd into a folder: Kubernetes from the Go module proxy, etcd from Debian.
# Some 10 minutes on 2 processors, once. Needs Go 1.24 or newer, jq, and apt. PROGRAM: kube-apiserver (the default), kubectl,
# kubelet, kube-proxy, kube-controller-manager, kube-scheduler, helm.
set -eu
folder=${1:?usage: binaries.sh FOLDER [PROGRAM...]}
shift
version=${KUBERNETES_VERSION:-1.33.4}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
if [ ! -x "$folder/etcd" ]; then
  apt-get download -qq etcd-server
  dpkg -x etcd-server_*.deb etcd
  install etcd/usr/bin/etcd "$folder/etcd"
fi

export CGO_ENABLED=0 GOFLAGS=-mod=mod
go mod init felix.example/kubernetes
go mod edit -require "k8s.io/kubernetes@v$version"
# What is published of Kubernetes requires its own parts at v0.0.0 (kubernetes/kubernetes#79384).
for module in $(awk '$1 ~ /^k8s.io\// && $2 == "v0.0.0" {print $1}' \
    "$(go mod download -json "k8s.io/kubernetes@v$version" | jq -r .GoMod)"); do
  go mod edit -replace "$module=$module@v0${version#1}"
done
major=${version%%.*} rest=${version#*.}
minor=${rest%%.*}
base=k8s.io/component-base/version
flags="-s -w -X $base.gitVersion=v$version -X $base.gitMajor=$major -X $base.gitMinor=$minor"
for program in "${@:-kube-apiserver}"; do
  [ ! -x "$folder/$program" ] || continue
  if [ "$program" = helm ]; then # it wants other versions of some modules
    (mkdir helm && cd helm && go mod init felix.example/helm && go mod edit -require "helm.sh/helm/v3@v${HELM_VERSION:-3.18.6}" &&
      nice -n 10 go build -ldflags "-s -w" -o "$folder/helm" helm.sh/helm/v3/cmd/helm)
  else
    nice -n 10 go build -ldflags "$flags" -o "$folder/$program" "k8s.io/kubernetes/cmd/$program"
  fi
done
