package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// readBounded reads a file, or standard input for "-", of at most most bytes.
func readBounded(streams genericiooptions.IOStreams, path string, most int) ([]byte, error) {
	if path == "-" {
		return readAll(streams.In, "standard input", most)
	}
	return readFile(path, most)
}

func readFile(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, most)
}

var errLarger = errors.New("larger")

func readAll(in io.Reader, name string, most int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
	if err != nil {
		clear(data)
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(data) > most {
		clear(data)
		return nil, fmt.Errorf("%s: %w than %d bytes", name, errLarger, most)
	}
	return data, nil
}

func readRootKey(streams genericiooptions.IOStreams, path string) (*unseal.RootKey, error) {
	text, name, err := rootKeyText(streams, path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := unseal.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	noteReadable(streams, path)
	return key, nil
}

// rootKeyText reads a root key, from a terminal without echo.
func rootKeyText(streams genericiooptions.IOStreams, path string) (text []byte, name string, err error) {
	t := terminalOf(streams)
	if path != "-" || t == nil {
		text, err = readBounded(streams, path, unseal.MaxTextSize)
		return text, path, err
	}
	quiet, err := t.hush()
	if err != nil {
		return nil, "", err
	}
	text, err = quiet.ask("root key (hidden; paste it, then Enter): ")
	return text, "what was typed", err
}

// noteReadable tells where others than its owner may read the file of a key.
func noteReadable(streams genericiooptions.IOStreams, path string) {
	info, err := os.Stat(path)
	if path == "-" || err != nil || !info.Mode().IsRegular() || runtime.GOOS == "windows" {
		return
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		prose(streams.ErrOut, "note: %s may be read by others (mode %04o); chmod 600 keeps it yours", path, mode)
	}
}
