package cli

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// sealedInText finds sealed values: base64 of "age-encryption.org/v1". A text is searched for them, and not parsed, so
// that every other byte of it stays, and so that what git shows of a broken file is the broken file.
var sealedInText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(sealedBeginning + `[0-9A-Za-z+/]+={0,2}`) })

const sealedBeginning = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"

// maxTextconv bounds the files of which git gets another text than their own, in bytes. It is far more than any
// reader of manifests takes.
const maxTextconv = 16 << 20

func newGitTextconv(streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   "textconv FILE",
		Short: "Print a manifest as 'git diff' shows it; git calls this",
		Long: `Print a file with a line about each sealed value in place of its base64: when it
was sealed, to which keys, its size, and the beginning of its SHA-256, by which
a value that was sealed anew differs from the one before. No key is needed, and
no value is shown. 'kubectl vsecm git setup' has git call it for each side of a
difference.

Exit codes: 0 done, 1 error.`,
		Example: `  kubectl vsecm git textconv secrets/db.yaml`,
		Args:    exactArgs(1, "one FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			text, err := io.ReadAll(io.LimitReader(f, maxTextconv))
			if err != nil {
				return err
			}
			if _, err := streams.Out.Write(sealedInText().ReplaceAllFunc(text, aboutSealed)); err != nil {
				return err
			}
			_, err = io.Copy(streams.Out, f)
			return err
		},
	}
}

const (
	// shownID is how much of a key's id is shown where it only has to differ from others, in hex digits.
	shownID = 8
	// shownHash is how much of a value's hash is shown, in bytes: git shows no difference between values that show the
	// same, and with half as much, who wants to slip one past a review finds such a value within hours.
	shownHash = 8
)

// aboutSealed says what a sealed value shows to anybody, in a few words.
func aboutSealed(sealed []byte) []byte {
	hash := sha256.Sum256(sealed)
	info, err := encrypt.Inspect(string(sealed))
	if err != nil {
		return fmt.Appendf(nil, "unreadable sealed value, #%x", hash[:shownHash])
	}
	ids := make([]string, len(info.KeyIDs))
	for i, id := range info.KeyIDs {
		ids[i] = string(id)[:shownID]
	}
	key := "key"
	if len(ids) > 1 {
		key = "keys"
	}
	bytes := "bytes"
	if info.Size == 1 {
		bytes = "byte"
	}
	return fmt.Appendf(nil, "sealed %s, %s %s, %d %s, #%x", info.SealedAt.Format(time.RFC3339), key, strings.Join(ids, " "), info.Size, bytes, hash[:shownHash])
}
