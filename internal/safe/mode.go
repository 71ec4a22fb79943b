package safe

// A RootKey says how Safe comes by its root key.
type RootKey struct {
	// Manual: none is made; Safe starts sealed and waits for it to be given.
	Manual bool
	// Memory: it is never written anywhere, and a restart is sealed. Implies
	// Manual.
	Memory bool
	// Name of the Secret that keeps it, in a cluster.
	Name string
	// Path of the file that the Secret may be mounted as, in a cluster.
	Path string
}
