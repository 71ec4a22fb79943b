// Package e2e tests what is installed in a cluster on a whole node of
// Kubernetes: real pods of our image, which kubelet probes and people reach
// through port-forwards. hack/e2e runs its tests; without it there are none.
package e2e
