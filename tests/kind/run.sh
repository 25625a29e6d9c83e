#!/usr/bin/env bash
# Runs tests/product.rs, the same tests that `make test` runs on a real node, on a kind cluster: for people with Docker.
#
# Around the cluster: two squids, which pods know by their names, and a web server on a network that only those are on. All
# of it is removed at the end, the cluster too. Arguments are given to the tests: tests/kind/run.sh promise
#
# Environment: KIND_IMAGE, the node image, so the version of Kubernetes [that of kind]; REACH_TEST_KEEP, when set, all of it
# is left running.
set -euo pipefail
shopt -s inherit_errexit
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

fail() {
  printf 'kind: %s\n' "$*" >&2
  exit 1
}

kind_version=v0.33.0
tools=${REACH_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/reach}/tools/bin
for tool in cargo docker go kubectl; do
  command -v "$tool" >/dev/null || fail "$tool is not installed"
done
docker info >/dev/null 2>&1 || fail "Docker does not run, or is not for this user"
kind=$tools/kind-$kind_version
if [[ ! -x $kind ]]; then
  GOBIN=$tools go install "sigs.k8s.io/kind@$kind_version"
  mv -- "$tools/kind" "$kind"
fi

name=reach-test
folder=$(mktemp -d)
remove() {
  "$kind" delete cluster --name "$name" >&2 || true
  docker rm --force "$name"-{proxy,other-proxy,outside} >/dev/null 2>&1 || true
  docker network rm "$name-outside" >/dev/null 2>&1 || true
  rm -rf -- "$folder"
}
finish() {
  if [[ -n ${REACH_TEST_KEEP:-} ]]; then
    printf 'kind: kept: export KUBECONFIG=%s/kubeconfig\n' "$folder" >&2
  else
    remove
  fi
}
# What an aborted run left would be in the way.
remove 2>/dev/null
mkdir -p -- "$folder/logs"
trap finish EXIT

archive=$(image/build.sh)
# One image for all clients: the tests know each by a name of its own.
around=example.test/curl:1
docker build --provenance=false --tag "$around" tests/kind
docker tag "$around" example.test/wget:1
docker tag "$around" example.test/python:1
docker save --output "$folder/clients.tar" example.test/{curl,wget,python}:1

cat >"$folder/kind.yaml" <<'END'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  # The proxy of the tests is not asked for these.
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/16
END
"$kind" create cluster --name "$name" --config "$folder/kind.yaml" --kubeconfig "$folder/kubeconfig" --wait 3m \
  ${KIND_IMAGE:+--image "$KIND_IMAGE"}
"$kind" load image-archive "$archive" --name "$name"
# Under the name of the chart's image, so that the chart needs no value for it.
version=$(awk '$1 == "appVersion:" {print $2}' charts/reach/Chart.yaml)
docker exec "$name-control-plane" ctr --namespace k8s.io images tag --force docker.io/library/reach:dev "ghcr.io/reach-dev/reach:$version"
"$kind" load image-archive "$folder/clients.tar" --name "$name"

docker network create --internal "$name-outside" >/dev/null
docker run --detach --name "$name-outside" --network "$name-outside" --network-alias www.corp.example "$around" sh -c \
  'mkdir /www && cd /www && echo "the outside" >index.html && exec python3 -m http.server 80' >/dev/null
# Squid gives up being root, and writes its log as the user proxy.
chmod 0711 "$folder" && chmod 0777 "$folder/logs"
for proxy in proxy other-proxy; do
  cat >"$folder/$proxy.conf" <<END
http_port 3128
http_access allow all
cache deny all
pid_filename none
access_log stdio:/logs/$proxy.log
cache_log /dev/null
shutdown_lifetime 1 seconds
END
  chmod 0644 "$folder/$proxy.conf"
  : >"$folder/logs/$proxy.log"
  chmod 0666 "$folder/logs/$proxy.log"
  # On kind's network the pods' DNS knows it by this name.
  docker run --detach --name "$name-$proxy" --network kind --network-alias "$proxy.corp.example" \
    --volume "$folder/$proxy.conf:/etc/squid/reach.conf:ro" --volume "$folder/logs:/logs" \
    "$around" squid -N -f /etc/squid/reach.conf >/dev/null
  docker network connect "$name-outside" "$name-$proxy"
done

export REACH_TEST_KUBECONFIG=$folder/kubeconfig
export REACH_TEST_PROXY_LOG=$folder/logs/proxy.log REACH_TEST_OTHER_PROXY_LOG=$folder/logs/other-proxy.log
cargo test --locked --test product -- "$@"
