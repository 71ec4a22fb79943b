//go:build unix

package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Nothing that was given a namespace opens a kubeconfig: one that is malformed would
// fail, and a FIFO that nobody writes to would never end.
func TestPromise02_EncryptNeedsThePublicKeyOnlyAndNoKubeconfig(t *testing.T) {
	inFolder(t, map[string]string{
		"value":       "v",
		"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\nstringData: {a: b}\n",
		"malformed":   "{{{",
	})
	if err := os.Rename("key.txt", "key-elsewhere"); err != nil {
		t.Fatal(err)
	}
	fifo, err := filepath.Abs("fifo")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	malformed, err := filepath.Abs("malformed")
	if err != nil {
		t.Fatal(err)
	}
	for _, kubeconfig := range []string{fifo, malformed} {
		t.Setenv("KUBECONFIG", kubeconfig)
		for _, args := range [][]string{
			{"encrypt", "db", "-n", "shop", "--key", "a"},
			{"encrypt", "db", "-n", "shop", "--from-file", "value", "-w", "db.yaml"},
			{"encrypt", "db", "--from-file", "value", "-w", "db.yaml"}, // the file has the namespace
			{"encrypt", "db", "--raw", "-n", "shop", "--key", "a"},
			{"encrypt", "-f", "secret.yaml"},
			{"inspect", "db.yaml"},
			{"validate", "."},
			{"reveal", "-f", "db.yaml", "--root-key", "key-elsewhere"},
			{"recipient", "--root-key", "key-elsewhere"},
			{"keygen"},
			{"version"},
			{"completion", "bash"},
			{"options"},
			{"--help"},
			{"__complete", "encrypt", ""},
		} {
			if code, _, stderr := run(t, "value", args...); code != exitOK {
				t.Errorf("KUBECONFIG=%s %q: exit code %d: %s", filepath.Base(kubeconfig), args, code, stderr)
			}
		}
	}
	// The test would notice: without a namespace the kubeconfig is read.
	if code, _, stderr := run(t, "value", "encrypt", "db", "--key", "a"); code == exitOK || !strings.Contains(stderr, "kubeconfig") {
		t.Errorf("without a namespace: exit code %d: %s", code, stderr)
	}
}

// The namespace of a kubeconfig's context is all that is taken from it: the cluster that it
// leads to is not asked.
func TestPromise02_EncryptAsksNoCluster(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	inFolder(t, map[string]string{"kubeconfig": `apiVersion: v1
kind: Config
current-context: main
contexts:
- {name: main, context: {cluster: c, user: u, namespace: shop}}
clusters:
- {name: c, cluster: {server: "http://` + server.Addr().String() + `"}}
users:
- {name: u, user: {token: t}}
`})
	if code, stdout, stderr := run(t, "", "encrypt", "db", "--from-literal=a=b", "--kubeconfig", "kubeconfig"); code != exitOK || !strings.Contains(stdout, "namespace: shop") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	// The first to call is this test.
	own, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	first, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != own.LocalAddr().String() {
		t.Error("the cluster was asked")
	}
}
