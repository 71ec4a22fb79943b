//go:build !linux && !darwin

package cli

func discardInput(int) {}
