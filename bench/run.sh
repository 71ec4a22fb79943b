#!/usr/bin/env bash
# Measures the product beside what it is compared with, all in one run, and
# prints the ratios as a table: see README.md here. The first run builds the
# others from their Go modules, which takes minutes; arguments go to the harness
# (go run ./bench -help).
set -euo pipefail
cd "$(dirname "$0")/.."

# The directory bears the versions, so that another version is another build.
kubeseal=v0.27.1
sops=$(go -C sops list -m -f '{{.Version}}' github.com/getsops/sops/v3)
tools=$PWD/.cache/bench/kubeseal-$kubeseal-sops-$sops
mkdir -p "$tools"

install_tool() {
	local name=$1 package=$2
	if [[ ! -x $tools/$name ]]; then
		echo "building $name ($package)" >&2
		GOFLAGS='' CGO_ENABLED=0 GOBIN=$tools go install -trimpath -ldflags '-s -w' "$package"
	fi
}
install_tool kubeseal "github.com/bitnami-labs/sealed-secrets/cmd/kubeseal@$kubeseal"
ln -sf "$(hack/sops)/sops" "$tools/sops"
# age is the release that the product itself is built with.
GOFLAGS='' CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$tools/age" filippo.io/age/cmd/age

# A replica of Safe is measured in a real cluster.
VSECM_TEST_CONTROLPLANE=$(hack/controlplane)
export VSECM_TEST_CONTROLPLANE

mkdir -p .cache/bench
go build -o .cache/bench/harness ./bench
exec .cache/bench/harness -bin bin -tools "$tools" "$@"
