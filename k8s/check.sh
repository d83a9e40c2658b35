#!/usr/bin/env bash
# Applies the manifests to a real Kubernetes API server (etcd and kube-apiserver on the loopback address), strictly: an undeclared
# field, a wrong type or a refused object fails. Needs go, kubectl and, for the first run, network access; builds the API server once
# (about four minutes) into .deps/kube.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
kube="$root/.deps/kube"
version=1.34.1
for tool in go kubectl openssl python3; do
  command -v "$tool" >/dev/null || { echo "k8s-check: $tool is missing"; exit 1; }
done
if ! command -v etcd >/dev/null; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get install -y --no-install-recommends etcd-server >/dev/null
fi

mkdir -p "$kube/module"
if [ ! -x "$kube/kube-apiserver" ]; then
  echo "building kube-apiserver $version"
  cd "$kube/module"
  echo 'module check' > go.mod
  source_mod=$(GOFLAGS=-mod=mod go mod download -json "k8s.io/kubernetes@v$version" | python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])')
  # The staging modules are replaced by their published versions.
  { echo "module check"; echo "go 1.24.0"; echo "require k8s.io/kubernetes v$version"
    grep -oE '^\s*k8s\.io/\S+ =>' "$source_mod" | awk '{print $1}' | sort -u | sed "s|.*|replace & => & v0.${version#1.}|"; } > go.mod
  printf 'package check\n\nimport _ "k8s.io/kubernetes/cmd/kube-apiserver"\n' > tools.go
  GOFLAGS=-mod=mod go mod tidy -e > tidy.log 2>&1 || true
  CGO_ENABLED=0 GOFLAGS=-mod=mod go build -trimpath -ldflags='-s -w' -o "$kube/" k8s.io/kubernetes/cmd/kube-apiserver
fi

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
etcd_port=$(port) peer_port=$(port) api_port=$(port)
etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
     --listen-peer-urls "http://127.0.0.1:$peer_port" > "$work/etcd.log" 2>&1 &
openssl genrsa -out "$work/sa.key" 2048 2>/dev/null
token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" > "$work/tokens.csv"
"$kube/kube-apiserver" --etcd-servers="http://127.0.0.1:$etcd_port" --service-account-key-file="$work/sa.key" \
  --service-account-signing-key-file="$work/sa.key" --service-account-issuer=https://kubernetes.default.svc --token-auth-file="$work/tokens.csv" \
  --authorization-mode=RBAC --service-cluster-ip-range=10.0.0.0/24 --cert-dir="$work/certs" --secure-port="$api_port" \
  --bind-address=127.0.0.1 --disable-admission-plugins=ServiceAccount > "$work/api.log" 2>&1 &
api=(kubectl --server="https://127.0.0.1:$api_port" --insecure-skip-tls-verify --token="$token")
for _ in $(seq 60); do "${api[@]}" get --raw /readyz >/dev/null 2>&1 && break; sleep 1; done
"${api[@]}" get --raw /readyz >/dev/null || { echo "k8s-check: the API server did not start"; tail -20 "$work/api.log"; exit 1; }

"${api[@]}" apply --server-side --validate=strict -f "$root/k8s/base/namespace.yaml"
"${api[@]}" kustomize "$root/k8s/base" | "${api[@]}" apply --server-side --validate=strict -f -
# The check can fail: a field that the schema does not have is refused.
if "${api[@]}" kustomize "$root/k8s/base" | sed 's/replicas:/replicaz:/' | "${api[@]}" apply --server-side --dry-run=server --validate=strict -f - >/dev/null 2>&1; then
  echo "k8s-check: an undeclared field was accepted"; exit 1
fi
echo "k8s-check: all manifests accepted"
