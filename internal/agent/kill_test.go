package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

const kills = 40

// generation is a state of which every value tells the number.
func generation(n int64) map[string]string {
	values := map[string]string{}
	for object := range 3 {
		for key := range 4 {
			values[fmt.Sprintf("o%d/k%d", object, key)] = fmt.Sprint(n)
		}
	}
	return values
}

// playWriter is an agent whose Safe has a new version all the time.
func playWriter() {
	hurried := hurried{}
	code, err := Run(context.Background(), Config{
		Target: &fetch.Target{Dir: os.Getenv("AGENT_TEST_DIR"), Tell: true}, Log: quiet(),
		Dial: func(context.Context, func(error)) (Client, error) { return hurried, nil },
	})
	fmt.Fprintln(os.Stderr, code, err)
	os.Exit(1) // it is killed
}

type hurried struct{}

func (hurried) Watch(ctx context.Context, fn func(*workload.Secrets)) error {
	for ctx.Err() == nil {
		fn(secretsOf(generation(time.Now().UnixNano())))
		time.Sleep(50 * time.Microsecond)
	}
	return ctx.Err()
}

func (hurried) Close() error { return nil }

// An agent is killed, again and again, in the middle of what it does, while
// readers look: through the link as a program may, at a whole version at a time.
// They see one version, whole, and never an older one than before.
func TestPromise07_AReaderNeverSeesHalfAVersionOfAKilledAgent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	var process *exec.Cmd
	launch := func() {
		process = exec.Command(os.Args[0])
		process.Env = append(os.Environ(), role+"=writer", "AGENT_TEST_DIR="+dir)
		process.Stderr = os.Stderr
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
	}
	launch()
	wait.For(t, "a first version", func() error {
		_, err := os.ReadFile(filepath.Join(dir, "o2", "k3"))
		return err
	})

	stop := make(chan struct{})
	var readers sync.WaitGroup
	looks := make([]int, 2)
	for i := range looks {
		readers.Go(func() {
			newest := ""
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, whole, err := look(dir)
				switch {
				case err != nil:
					t.Error(err)
					return
				case !whole:
					continue
				case got < newest:
					t.Errorf("read version %s after %s", got, newest)
					return
				}
				newest = got
				looks[i]++
			}
		})
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range kills {
		before, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		// It has to have written since it was started, or nothing was interrupted.
		wait.For(t, "a newer version", func() error {
			if now, err := os.Readlink(filepath.Join(dir, "..data")); err != nil || now == before {
				return fmt.Errorf("still %s, %v", now, err)
			}
			return nil
		})
		time.Sleep(time.Duration(random.IntN(int(5 * time.Millisecond))))
		_ = process.Process.Kill()
		_ = process.Wait()
		launch()
	}
	_ = process.Process.Kill()
	_ = process.Wait()
	close(stop)
	readers.Wait()
	for _, n := range looks {
		if n < kills {
			t.Errorf("a reader saw %d versions: too few to tell anything", n)
		}
	}

	// Nothing is left of those that were killed once another has written.
	r := start(t, Config{Target: &fetch.Target{Dir: dir}})
	r.safe(password("the last"))
	holds(t, filepath.Join(dir, "db", "password"), "the last")
	wait.For(t, "what is left", func() error {
		entries, err := os.ReadDir(dir)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if all := strings.Join(names, " "); err == nil && (len(names) != 4 || !strings.HasPrefix(all, "..data ..told ..v_") || names[3] != "db") {
			err = errors.New(all)
		}
		return err
	})
}

// look reads a version as it is said to be done. whole is false where the
// version was removed in the middle, as one is that was replaced.
func look(dir string) (generation string, whole bool, err error) {
	version, err := os.OpenRoot(filepath.Join(dir, "..data"))
	if err != nil {
		return "", false, fmt.Errorf("there was a moment without a version: %w", err)
	}
	defer version.Close()
	for object := range 3 {
		for key := range 4 {
			name := fmt.Sprintf("o%d/k%d", object, key)
			got, err := version.ReadFile(name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return "", false, nil
			case err != nil:
				return "", false, err
			case len(got) < 19:
				return "", false, fmt.Errorf("%s holds %q", name, got)
			case generation == "":
				generation = string(got)
			case generation != string(got):
				return "", false, fmt.Errorf("a mixture of %s and %s", generation, got)
			}
		}
	}
	return generation, true, nil
}
