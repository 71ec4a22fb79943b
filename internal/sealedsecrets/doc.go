// Package sealedsecrets reads SealedSecrets of Bitnami's sealed-secrets and opens them with the private keys of the controller that
// they were sealed for, so that they can be imported.
//
// Opening them is their own library's work, github.com/bitnami-labs/sealed-secrets/pkg/crypto. What stands in a
// manifest, and what the controller makes of it, is as in pkg/apis/sealedsecrets/v1alpha1 of version 0.40.0, which would draw in the types of
// Kubernetes if it were used.
package sealedsecrets
