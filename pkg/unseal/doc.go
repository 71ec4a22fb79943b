// Package unseal holds what opens sealed values: root keys, in the three-line
// text that people keep and Kubernetes stores, and the keyring that looks them
// up by key id.
//
// The format of a root key is docs/formats.md, "Root key".
package unseal
