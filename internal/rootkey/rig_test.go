package rootkey

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

var cluster controlplane.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// patience bounds every wait. It only ends a test that has failed.
const patience = 30 * time.Second

// keyA is Safe's own key in most tests, keyB another one.
var keyA, keyB = textOf(false), textOf(true)

func textOf(classic bool) string {
	k, err := unseal.Generate(classic)
	if err != nil {
		panic(err)
	}
	return string(k.Text())
}

// recipients holds those of keys that were asked for: to parse a key takes long with the race detector.
var recipients sync.Map

func recipientOf(text string) encrypt.Recipient {
	if r, known := recipients.Load(text); known {
		return r.(encrypt.Recipient)
	}
	k, err := unseal.Parse([]byte(text))
	if err != nil {
		panic(err)
	}
	recipients.Store(text, k.Recipient())
	return k.Recipient()
}

func idOf(text string) encrypt.KeyID { return recipientOf(text).KeyID() }

// sealedToKey is an object with a value that needs the key.
func sealedToKey(t testing.TB, text string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = "shop", "db"
	sealed, err := encrypt.Seal([]byte("correct horse"), encrypt.BindingOf(o, "password"), []encrypt.Recipient{recipientOf(text)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.EncryptedData = map[string]string{"password": sealed}
	return o
}

// showsNoKey looks for the private lines of keys, raw, in base64 or in hex, also in part.
func showsNoKey(t testing.TB, what, text string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		lines := strings.Split(key, "\n")
		secret := lines[0][strings.LastIndex(lines[0], "-1")+2:]
		for _, private := range []string{secret, lines[2]} {
			for i := 0; i+16 <= len(private); i += 8 {
				for _, part := range []string{private[i : i+16], hex.EncodeToString([]byte(private[i : i+16])), fmt.Sprint([]byte(private[i : i+16]))[1:40]} {
					if strings.Contains(strings.ToUpper(text), strings.ToUpper(part)) {
						t.Fatalf("%s shows a part of a root key", what)
					}
				}
			}
		}
	}
}

// A holder says what it was told.
type holder struct{ sealed atomic.Bool }

func (h *holder) Seal()   { h.sealed.Store(true) }
func (h *holder) Unseal() { h.sealed.Store(false) }

// A rig is a Safe as far as its seal goes.
type rig struct {
	t      testing.TB
	config Config
	holder holder
	log    logs.Buffer
	keeper *Keeper
	// wrong: something is wrong with what is kept, and an unsealed Safe may say so.
	wrong bool
	stop  func()
}

func newRig(t testing.TB, place Place, change ...func(*Config)) *rig {
	r := &rig{t: t, stop: func() {}}
	r.config = Config{
		Place: place, Gate: unseal.NewGate(), Holder: &r.holder,
		Objects: func(context.Context) ([]*v1alpha1.EncryptedSecret, error) { return nil, nil },
		Log:     slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&r.config)
	}
	r.keeper = New(r.config)
	t.Cleanup(func() { showsNoKey(t, "the log", r.log.String(), keyA, keyB) })
	return r
}

// run runs the keeper until the test ends or r.stop is called.
func (r *rig) run() *rig {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.keeper.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			r.t.Errorf("Run ended with %v", err)
		}
	})
	r.t.Cleanup(r.stop)
	return r
}

// settled waits for the first look, and checks that all say the same of the seal.
func (r *rig) settled() Status {
	r.t.Helper()
	select {
	case <-r.keeper.Looked():
	case <-time.After(patience):
		r.t.Fatalf("it did not look\n%s", r.log.String())
	}
	return r.status()
}

// status returns the status, and checks that the parts of the keeper say the same of it. They are
// asked one after the other: where they differ, a change has to be under way.
func (r *rig) status() Status {
	r.t.Helper()
	for {
		changed := r.keeper.Changed()
		st := r.keeper.Status()
		wrong := r.contradictions(st)
		if len(wrong) == 0 {
			return st
		}
		select {
		case <-changed:
		case <-time.After(patience):
			r.t.Errorf("status %+v: %q", st, wrong)
			return st
		}
	}
}

// contradictions tells what does not go with a status.
func (r *rig) contradictions(st Status) (wrong []string) {
	r.t.Helper()
	if open := st.State == Unsealed; open != (r.config.Gate.Era() != 0) || open == r.holder.sealed.Load() {
		wrong = append(wrong, fmt.Sprintf("the gate's era is %d, and the holder is sealed: %v", r.config.Gate.Era(), r.holder.sealed.Load()))
	}
	open, shares := st.State == Unsealed, st.Progress.Set != unseal.SetID{}
	if n := len(st.Missing); n > 0 {
		if open || n > 2 || st.Reason == "" || !shares && (st.Progress.Given != 2-n || st.Progress.Needed != 2) {
			wrong = append(wrong, "what is missing")
		}
	} else if !open && st.Reason == "" || open && st.Reason != "" && !r.wrong || open && shares || !shares && (open != (st.Progress.Given == 1) || st.Progress.Needed != 1) {
		wrong = append(wrong, "the reason or the progress")
	}
	recipient, known := r.keeper.Recipient()
	if known != (st.KeyID != "") || known && recipient.KeyID() != st.KeyID {
		wrong = append(wrong, fmt.Sprintf("recipient %.30s", recipient))
	}
	showsNoKey(r.t, "the status", fmt.Sprintf("%+v", st), keyA, keyB)
	return wrong
}

// until waits for a state.
func (r *rig) until(state State) Status {
	r.t.Helper()
	late := time.After(patience)
	for {
		changed := r.keeper.Changed()
		if st := r.keeper.Status(); st.State == state {
			return r.status()
		}
		select {
		case <-changed:
		case <-late:
			r.t.Fatalf("never %s: %+v\n%s", state, r.keeper.Status(), r.log.String())
		}
	}
}

// holds tells whether the gate holds a key.
func (r *rig) holds(text string) bool {
	_, held := r.config.Gate.Identity(idOf(text))
	return held
}

func (r *rig) unseal(text string, accept encrypt.KeyID) error {
	r.t.Helper()
	err := r.keeper.Unseal(r.t.Context(), []byte(text), accept)
	if err != nil {
		showsNoKey(r.t, "an error", err.Error(), keyA, keyB)
	}
	return err
}

func chmod(t testing.TB, file string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
}

// eventuallyNil tries until it succeeds.
func eventuallyNil(t testing.TB, try func() error) {
	t.Helper()
	var err error
	wait.Until(t, "success", func() bool { err = try(); return err == nil })
}
