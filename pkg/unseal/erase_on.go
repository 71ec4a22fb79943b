//go:build goexperiment.runtimesecret

package unseal

import "runtime/secret"

// erasing calls f, and has erased what f leaves on the stack and in registers, and
// on the heap once nothing points to it.
func erasing(f func()) { secret.Do(f) }
