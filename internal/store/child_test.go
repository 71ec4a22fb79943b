package store_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childRole tells this test binary, started again by one of its own tests,
// which part it plays; childDir is the data directory that it works on.
const (
	childRole = "VSECM_STORE_TEST_ROLE"
	childDir  = "VSECM_STORE_TEST_DIR"
)

// runChild plays the part that the environment names, if it does.
func runChild() bool {
	var run func(dir string) error
	switch role := os.Getenv(childRole); {
	case role == "":
		return false
	case role == "full":
		run = fillUp
	case strings.HasPrefix(role, "write "):
		run = func(dir string) error { return writeStream(dir, role) }
	default:
		run = func(string) error { return fmt.Errorf("no such role: %s", role) }
	}
	if err := run(os.Getenv(childDir)); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	return true
}

// startChild starts this test binary in a role, and returns what it prints,
// line by line.
func startChild(t *testing.T, role, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return child, bufio.NewScanner(out)
}
