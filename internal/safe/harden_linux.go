package safe

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps the process's memory from other processes of the same user and
// out of core dumps. Root reads it all the same.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning off core dumps: %w", err)
	}
	return nil
}
