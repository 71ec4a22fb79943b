//go:build linux

package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/node"
)

// cluster is the node that the tests share, one after the other.
var cluster *node.Node

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(node.Variable) == "" {
		fmt.Println("left out: what needs a whole node of Kubernetes; make e2e runs it")
		// The words that go test looks for.
		fmt.Println("testing: warning: no tests to run")
		return 0
	}
	var err error
	if cluster, err = node.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}
