//go:build unix

package cli

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

type ownedBy struct {
	fs.FileInfo
	uid uint32
}

func (o ownedBy) Sys() any { return &syscall.Stat_t{Uid: o.uid} }

func TestAFileIsForeignUnlessItIsOursOrRoots(t *testing.T) {
	us := uint32(os.Getuid())
	for uid, foreign := range map[uint32]bool{us: false, 0: false, us + 4711: true} {
		if isForeign(ownedBy{uid: uid}) != foreign {
			t.Errorf("uid %d, we are %d: want %v", uid, us, foreign)
		}
	}
}

func TestTheProjectFileOfAnotherUserIsLeftOut(t *testing.T) {
	t.Chdir(t.TempDir())
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	rules := "rules:\n- {path: '**', namespace: shop, recipients: [" + key.Recipient().String() + "]}\n"
	if err := os.WriteFile(".vsecm.yaml", []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	encrypt := func() (code int, said string) {
		var out bytes.Buffer
		code = Main(context.Background(), []string{"encrypt", "db", "--from-literal", "a=b"}, genericiooptions.IOStreams{In: strings.NewReader(""), Out: io.Discard, ErrOut: &out})
		return code, out.String()
	}
	t.Setenv(recipientsVariable, "")
	if code, said := encrypt(); code != 0 {
		t.Fatalf("of our own: %s", said)
	}
	if os.Getuid() != 0 {
		return // only root can give a file away
	}
	if err := os.Chown(".vsecm.yaml", 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if code, said := encrypt(); code == 0 || !strings.Contains(said, "belongs to another user") || !strings.Contains(said, "no recipients") {
		t.Errorf("of somebody else: exit %d, %s", code, said)
	}
}
