// Package vsecm reads what VMware Secrets Manager (VSecM) wrote: its root key, its ciphertexts, what
// 'safe -l -e' exports, and the data folder of its Safe; and makes EncryptedSecrets of it.
//
// The formats are those of VSecM up to 0.28.1, github.com/vmware/secrets-manager. Comments name the files
// there that a fact comes from.
//
// VSecM's values are bound to no place. This package is the only one that takes such values, and it
// refuses every value that is bound ([ErrBound]): or it would be a way to give a value another place.
package vsecm
