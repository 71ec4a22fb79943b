// Reader is a program as any other for the tests of pods: it knows nothing of
// Safe, and reads files.
//
//	reader DIR OBJECT KEY...
//
// It reads them all the time, as docs/agent.md says that a program does which
// needs several keys of one version: DIR/..data is opened once, and all are read
// below it. Each has to be whole, and all of the same version, or that is a fault
// for good. Port 8080 tells how it went.
//
// A whole file of version V is any number of lines V, and a last one: V end.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A state is what port 8080 tells.
type state struct {
	Version string    `json:"version"` // empty: none was read yet
	Since   time.Time `json:"since"`   // when it was first read whole
	Reads   int       `json:"reads"`   // of all files, whole
	Again   int       `json:"again"`   // reads that a change came in between
	Told    int       `json:"told"`    // SIGHUPs, by which many a program is told to read its files again
	Fault   string    `json:"fault"`
}

// A reader reads in one goroutine and is asked by others.
type reader struct {
	dir, object string
	keys        []string

	mu sync.Mutex
	state
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("want DIR OBJECT KEY...")
	}
	r := &reader{dir: os.Args[1], object: os.Args[2], keys: os.Args[3:]}
	// Until the program ends.
	go r.run()
	go r.hear()
	log.Fatal(http.ListenAndServe(":8080", r))
}

func (r *reader) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = json.NewEncoder(w).Encode(r.state) // who asked may be gone
}

// hear counts what it is told.
func (r *reader) hear() {
	told := make(chan os.Signal, 10)
	signal.Notify(told, syscall.SIGHUP)
	for range told {
		r.mu.Lock()
		r.Told++
		r.mu.Unlock()
	}
}

// patience is how often in a row a change may come in between: each time takes
// another change, so that more is a file that is not there.
const patience = 100

func (r *reader) run() {
	for row := 0; ; {
		version, err := r.read()
		row++
		if errors.Is(err, fs.ErrNotExist) && row < patience {
			r.mu.Lock()
			r.Again++
			r.mu.Unlock()
			continue
		}
		row = 0
		r.mu.Lock()
		switch {
		case err != nil:
			r.Fault = err.Error()
		case version != r.Version:
			r.Version, r.Since, r.Reads = version, time.Now(), r.Reads+1
		default:
			r.Reads++
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// read reads every file once.
func (r *reader) read() (version string, err error) {
	root, err := os.OpenRoot(filepath.Join(r.dir, "..data"))
	if err != nil {
		return "", err
	}
	defer root.Close()
	for _, key := range r.keys {
		content, err := root.ReadFile(filepath.Join(r.object, key))
		if err != nil {
			return "", err
		}
		this, err := versionOf(string(content))
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		if version == "" {
			version = this
		}
		if this != version {
			return "", fmt.Errorf("%s is of version %s, and what was read before it of %s", key, this, version)
		}
	}
	// The path that most programs use.
	content, err := os.ReadFile(filepath.Join(r.dir, r.object, r.keys[0]))
	if err != nil {
		return "", err
	}
	if _, err := versionOf(string(content)); err != nil {
		return "", fmt.Errorf("%s, by its path: %w", r.keys[0], err)
	}
	return version, nil
}

func versionOf(content string) (string, error) {
	version, _, _ := strings.Cut(strings.TrimSuffix(content, " end\n"), "\n")
	lines := strings.Count(content, "\n")
	if version == "" || content != strings.Repeat(version+"\n", max(lines-1, 0))+version+" end\n" {
		return "", fmt.Errorf("%d bytes that are not one whole version", len(content))
	}
	return version, nil
}
