package safe_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// normalKills is how often `make test` kills Safe; `make soak` does it as often
// as VSECM_SOAK_KILLS says.
const normalKills = 20

// killSeed decides when Safe is killed, and what is pushed. VSECM_SOAK_SEED sets
// another one.
const killSeed = 20261

// TestPromise07_KilledSafeLosesNothing kills Safe with SIGKILL at random, from its
// start on, while commits are pushed. A workload reads all the while. What it got
// once it never sees an older version of, in this Safe or the next; an object is
// never a mix of two versions; and in the end it has what was pushed last.
func TestPromise07_KilledSafeLosesNothing(t *testing.T) {
	kills, seed := number(t, "VSECM_SOAK_KILLS", normalKills), uint64(number(t, "VSECM_SOAK_SEED", killSeed))
	random := rand.New(rand.NewPCG(seed, 1))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d; the moments of the kills differ from run to run all the same, for Safe's speed does", seed)
		}
	}()
	w := local(t)
	pushes := newPushes(w, seed, kills)
	w.start()
	w.applied(0)
	reads := &reads{t: t, latest: map[string]int{}, gone: map[string]bool{}}
	db := w.workload("db")

	var stopPushes sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	stopPushes.Go(func() {
		for ctx.Err() == nil && !t.Failed() {
			pushes.next()
		}
	})
	defer func() { stop(); stopPushes.Wait() }()

	unready := 0
	for kill := 0; kill < kills && !t.Failed(); kill++ {
		// Half of them while Safe starts, half once it has delivered something new.
		moment := time.Duration(random.Int64N(int64(500 * time.Millisecond)))
		atWork := kill%2 == 0
		var timer *time.Timer
		killLater := func() { timer = time.AfterFunc(moment, w.process.kill) }
		if !atWork {
			moment /= 4
			killLater()
		}
		served, versions := false, reads.versions
		for alive(w.process) && !t.Failed() {
			w.at.API = listening(w.process)
			if w.at.API == "" {
				time.Sleep(time.Millisecond)
				continue
			}
			now := reads.once(db, fmt.Sprintf("kill %d, after %v, at work: %t", kill, moment, atWork))
			if served = served || now; timer == nil && reads.versions > versions {
				killLater()
			}
		}
		if timer != nil {
			timer.Stop()
		}
		w.process.kill() // where a failure ended the loop
		if !served {
			unready++
		}
		w.launch()
	}
	stop()
	stopPushes.Wait()
	w.at = w.process.logged(t, "started")
	wait.For(t, "Safe is ready", func() error { return w.probe(200) })
	w.applied(0)
	db.wants(pushes.values())
	reads.once(db, "the end")
	t.Logf("%d kills, %d of them before anything was served; %d pushes; %d reads, of %d versions", kills, unready, pushes.n, reads.n, reads.versions)
	if reads.versions < kills/2 {
		t.Errorf("the test saw too little to tell anything")
	}
}

func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number", variable, s)
	}
	return n
}

func alive(p *process) bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// listening returns the address of the workload API, once it is known.
func listening(p *process) string {
	_, rest, ok := strings.Cut(p.stderr.String(), `"msg":"serving","api":"`)
	if !ok {
		return ""
	}
	addr, _, ok := strings.Cut(rest, `"`)
	if !ok {
		return ""
	}
	return addr
}

// pushes is the stream of commits. Commit n writes n into both values of pair,
// and into the one of single, which moves from file to file; now and then it
// adds an object extra-n and deletes the oldest of them.
type pushes struct {
	w       *world
	random  *rand.Rand
	n       int
	single  string // the file of single
	extras  []int
	deletes int // how many more there may be
	rarely  int // one commit in so many adds and deletes
}

// newPushes makes the first commit. It has objects that stay: of fewer, the
// deletions would be more than Safe does unasked.
func newPushes(w *world, seed uint64, kills int) *pushes {
	p := &pushes{w: w, random: rand.New(rand.NewPCG(seed, 2))}
	const stay = 200
	p.deletes, p.rarely = stay/2-20, max(3, kills/20)
	var ballast strings.Builder
	for i := range stay {
		ballast.WriteString("---\n" + w.seal(fmt.Sprintf("ballast-%d", i), map[string]string{"a": "1"}))
	}
	w.write(filepath.Join(w.clone, "ballast.yaml"), ballast.String())
	p.next()
	return p
}

// extras is how many of the objects extra-n there are.
const extras = 3

func (p *pushes) next() {
	p.n++
	text := strconv.Itoa(p.n)
	pair := map[string]string{"a": text, "b": text}
	files := map[string]string{"pair.yaml": p.w.seal("pair", pair, readers("db"))}
	if p.single == "" || p.random.IntN(2) == 0 {
		if p.single != "" {
			files[p.single] = ""
		}
		p.single = fmt.Sprintf("%c/single-%d.yaml", 'a'+rune(p.random.IntN(3)), p.n)
	}
	files[p.single] = p.w.seal("single", map[string]string{"a": text}, readers("db"))
	if p.deletes > 0 && p.random.IntN(p.rarely) == 0 {
		files[extra(p.n)+".yaml"] = p.w.seal(extra(p.n), pair, readers("db"))
		if p.extras = append(p.extras, p.n); len(p.extras) > extras {
			files[extra(p.extras[0])+".yaml"] = ""
			p.extras = p.extras[1:]
			p.deletes--
		}
	}
	p.w.push(files)
}

func extra(n int) string { return fmt.Sprintf("extra-%d", n) }

// values is what the workload gets after the last commit.
func (p *pushes) values() map[string]string {
	text := strconv.Itoa(p.n)
	all := map[string]string{"pair/a": text, "pair/b": text, "single/a": text}
	for _, n := range p.extras {
		all[extra(n)+"/a"], all[extra(n)+"/b"] = strconv.Itoa(n), strconv.Itoa(n)
	}
	return all
}

// reads remembers what was delivered.
type reads struct {
	t        *testing.T
	n        int
	versions int
	latest   map[string]int // by object
	gone     map[string]bool
	last     map[string]string
}

// once asks Safe and checks what it delivers against all that it did before. It
// reports whether there was an answer: Safe may be starting, or dead.
func (r *reads) once(c *workload, when string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := c.get(ctx, "", "")
	if errors.Is(err, errRefused) && got.code != 503 {
		r.t.Errorf("%s: %v", when, err)
	}
	if err != nil {
		return false
	}
	r.n++
	if !maps.Equal(got.values, r.last) {
		r.versions++
	}
	r.last = got.values
	objects := map[string]int{}
	for place, text := range got.values {
		object, _, _ := strings.Cut(place, "/")
		n, err := strconv.Atoi(text)
		if before, seen := objects[object]; err != nil || seen && before != n {
			r.t.Errorf("%s: %s is a mix of versions: %s", when, object, show(got.values))
		}
		objects[object] = n
	}
	for _, object := range []string{"pair", "single"} {
		if _, there := objects[object]; !there {
			r.t.Errorf("%s: %s is lost: %s", when, object, show(got.values))
		}
	}
	for object, n := range objects {
		if n < r.latest[object] {
			r.t.Errorf("%s: %s is version %d, after %d was delivered", when, object, n, r.latest[object])
		}
		if r.gone[object] {
			r.t.Errorf("%s: %s is back, after its deletion was seen", when, object)
		}
		if _, both := got.values[object+"/b"]; object != "single" && !both || got.values[object+"/a"] == "" {
			r.t.Errorf("%s: %s is half there: %s", when, object, show(got.values))
		}
	}
	for object := range r.latest {
		if _, there := objects[object]; !there {
			r.gone[object] = true
		}
	}
	r.latest = objects
	return true
}
