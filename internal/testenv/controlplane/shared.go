package controlplane

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// Shared is one control plane for the tests of a package:
//
//	var cluster controlplane.Shared
//
//	func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		cp := cluster.Start(t)
//		…
//
// It starts when the first test asks for it. The zero value is ready.
type Shared struct {
	// EveryTest says that all tests of the package need the control plane.
	// Where there is none, go test then reports [no tests to run] for the
	// package, rather than that they passed.
	EveryTest bool

	mu      sync.Mutex
	cp      *ControlPlane
	err     error
	skipped bool
}

// Start returns the control plane. Like [Dir], it skips the test where there
// are no programs to start.
func (s *Shared) Start(t testing.TB) *ControlPlane {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if os.Getenv(Variable) == "" {
		s.skipped = true
	}
	dir := Dir(t)
	if s.cp == nil && s.err == nil {
		s.cp, s.err = New(dir, Options{})
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.cp
}

// Main runs the tests of m and returns the exit code of the program. It ends
// the control plane, if one was started, says so where tests were left out for
// want of one, and fails where a goroutine is left.
func (s *Shared) Main(m interface{ Run() int }) int {
	code := m.Run()
	if s.skipped {
		fmt.Println(leftOut)
		if s.EveryTest {
			// The words that go test looks for.
			fmt.Println("testing: warning: no tests to run")
		}
	}
	if s.cp != nil {
		if err := s.cp.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}
