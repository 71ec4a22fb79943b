// Package vault reads a KV version 2 secrets engine of HashiCorp Vault or OpenBao, so that what is in it can be imported.
//
// Its four calls of the HTTP API (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2) do not need Vault's own client, which
// would bring two dozen modules along. It changes nothing in Vault, and asks for the newest version of a secret alone.
package vault
