package docs

import (
	"flag"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/docpage"
)

// checkout is where this repository is.
const checkout = "../.."

// write puts what commands print into the pages where they show something else.
var write = flag.Bool("write", false, "write what commands print into the pages")

// What the pages have their reader type does what they say, and prints what they show.
func TestPages(t *testing.T) {
	pages, err := Pages(checkout)
	if err != nil {
		t.Fatal(err)
	}
	acts := 0
	for _, name := range pages {
		page, err := docpage.Read(filepath.Join(checkout, name))
		if err != nil {
			t.Error(err)
			continue
		}
		byWorld := actsOf(page)
		if len(byWorld) == 0 {
			continue
		}
		acts += len(byWorld)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, act := range byWorld {
				t.Run(act[0].World, func(t *testing.T) { play(t, page, act) })
			}
			if *write {
				if err := page.Write(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if acts < 2 {
		t.Errorf("%d parts of pages are to be played", acts)
	}
}

// actsOf divides the blocks that are to be played by the worlds that they are played in.
func actsOf(page *docpage.Page) (acts [][]*docpage.Block) {
	var last *docpage.Block
	for _, b := range page.Blocks {
		if b.World == "" || b.Skipped != "" || b.Kind == docpage.Reading {
			continue
		}
		if last == nil || last.Act != b.Act {
			acts = append(acts, nil)
		}
		acts[len(acts)-1] = append(acts[len(acts)-1], b)
		last = b
	}
	return acts
}

// play plays one act of a page.
func play(t *testing.T, page *docpage.Page, act []*docpage.Block) {
	w := newWorld(t, act[0].World)
	for _, b := range act {
		w.play(page, b)
	}
}

// play plays a block.
func (w *world) play(page *docpage.Page, b *docpage.Block) {
	w.t.Helper()
	what := page.At(b)
	if b.Kind == docpage.File {
		folder, end := filepath.Dir(b.Path), "END-OF-THE-FILE"
		w.sh.Play(what, "mkdir -p '"+folder+"'\ncat > '"+b.Path+"' <<'"+end+"'\n"+w.real(b.Text)+end)
		return
	}
	deadline := time.Now().Add(docpage.Patience)
	if *write {
		deadline = time.Now().Add(5 * time.Second)
	}
	for {
		w.settle()
		var printed string
		switch commands := w.comparison.Here(w.real(b.Text)); {
		case b.Fails:
			printed = w.sh.PlayFailing(what, commands)
		case b.Asks:
			printed = w.sh.PlayAsking(what, commands, b.Answers)
		default:
			printed = w.sh.Play(what, commands)
		}
		printed = docpage.Readable(w.shown(printed))
		if !b.Shows {
			return
		}
		err := w.comparison.Compare(b.Output, printed)
		switch {
		case err == nil:
			return
		case b.Until && time.Now().Before(deadline):
			time.Sleep(100 * time.Millisecond) // between two tries
		case *write:
			b.Show(printed)
			return
		default:
			w.t.Errorf("%s: %v\n%s\nthe page shows:\n%s\nprinted is:\n%s", what, err, b.Text, b.Output, printed)
			return
		}
	}
}
