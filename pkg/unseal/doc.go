// Package unseal holds what opens sealed values: root keys, in the three-line
// text that people keep and Kubernetes stores, and the keyring that looks them
// up by key id.
//
// # Shares
//
// [Split] makes shares of a root key, so that several people have to come together to
// open it. Each checks what it was given with [ParseShare] and [ShareSet.Check];
// a [Ceremony] gathers shares from different people, and [ShareSet.Combine] opens the
// key with those that are at hand.
//
// The formats are docs/formats.md, "Root key" and "Shares"; what shares give away is
// docs/threat-model.md, "Shares".
package unseal
