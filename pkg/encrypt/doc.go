// Package encrypt seals secret values into standard age v1 files that are
// bound to one place, and reads and edits the EncryptedSecret manifests that
// carry them.
//
// # Sealing
//
// [Seal] needs public keys only: no private key, no cluster, no network. What
// it returns is standard base64 of a binary age file, so
//
//	base64 -d | age -d -i key.txt
//
// recovers the exact value without this package. A stanza of type
// vsecm.com/bind in the file's header, authenticated by age's own header MAC,
// says where the value may be used: see [Binding].
//
// # Opening
//
// [Open] takes the binding of the place that the value was found in and the
// keys that the caller holds, and refuses everything that was not sealed for
// that very place, before it performs any private-key operation.
//
// # Manifests
//
// [ReadManifests] reads the YAML and JSON that crosses a trust boundary: every
// fault names its file, line and field, and one bad document does not hide the
// others. [SetValues] and [RemoveValues] change single values of a manifest,
// [ReplaceValues] many values of a file, and keep every other byte, comments and
// order included. [SetManifest] changes all that a manifest says, and [MarshalPlain]
// and [ReadPlain] are how people edit it in the clear.
//
// The formats are written down in docs/formats.md, precisely enough for
// another implementation; testdata/vectors lets it check itself.
package encrypt
