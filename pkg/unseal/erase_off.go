//go:build !goexperiment.runtimesecret

package unseal

// erasing calls f. A program that is built with GOEXPERIMENT=runtimesecret erases what
// f leaves in memory, too.
func erasing(f func()) { f() }
