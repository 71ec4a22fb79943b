//go:build unix

package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
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

func TestRecipientsOfSomebodyElsesProjectFileAreNotTaken(t *testing.T) {
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(recipientsVariable, "")
	rule := encrypt.Rule{Path: "**", Recipients: []encrypt.Recipient{key.Recipient()}}
	p := &project{root: filepath.Join("/", "tmp"), rules: &encrypt.Project{Rules: []encrypt.Rule{rule}}}
	if rs, err := new(recipientFlags).resolve(p, rule); err != nil || len(rs) != 1 {
		t.Fatalf("of our own: %v, %v", rs, err)
	}
	p.foreign = true
	if _, err := new(recipientFlags).resolve(p, rule); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("of somebody else's: %v", err)
	}
	if rs, err := (&recipientFlags{recipients: []string{key.Recipient().String()}}).resolve(p, rule); err != nil || len(rs) != 1 {
		t.Errorf("named by flag: %v, %v", rs, err)
	}
}
