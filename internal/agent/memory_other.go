//go:build !linux

package agent

import "log/slog"

// Harden is for Linux.
func Harden() error { return nil }

func warnOfDisk(*slog.Logger, string) {}
