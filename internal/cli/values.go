package cli

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// valueFlags say where the plaintext of single keys comes from, as with
// kubectl create secret generic.
type valueFlags struct {
	files    []string
	literals []string
	envFiles []string
	key      string
	generate []string

	random io.Reader // what values are made of
}

func (f *valueFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.files, "from-file", nil, "Take a value from a file, whose name is the key unless `[KEY=]PATH` names one. PATH may be - for standard input, or a folder, each of whose files is a value. May be repeated")
	cmd.Flags().StringArrayVar(&f.literals, "from-literal", nil, "Take a value from the command line, `KEY=VALUE`, where shell history and process lists show it. May be repeated")
	cmd.Flags().StringArrayVar(&f.envFiles, "from-env-file", nil, "Take values from the lines KEY=VALUE of this `FILE`. May be repeated")
	cmd.Flags().StringVar(&f.key, "key", "", "Take the value of this one `KEY` from standard input, or from a hidden prompt on a terminal")
	cmd.Flags().StringArrayVar(&f.generate, "generate", nil, "Make a random value that nobody gets to see, `KEY=LENGTH[:CHARSET]`. CHARSET is alnum (the default), letters, digits, hex, base64url, ascii, or chars= and the characters. May be repeated")
	_ = cmd.RegisterFlagCompletionFunc("generate", cobra.NoFileCompletions)
	f.random = rand.Reader
}

// given tells whether a source of values is named.
func (f *valueFlags) given() bool {
	return len(f.files)+len(f.literals)+len(f.envFiles) > 0 || f.key != ""
}

// read returns the values by key. They are the caller's to wipe.
func (f *valueFlags) read(streams genericiooptions.IOStreams) (map[string][]byte, error) {
	vs := values{byKey: make(map[string][]byte)}
	err := f.readInto(&vs, streams)
	if err == nil && len(vs.byKey) == 0 {
		err = errors.New("no values to encrypt")
	}
	if err != nil {
		wipe(vs.byKey)
		return nil, err
	}
	return vs.byKey, nil
}

func (f *valueFlags) readInto(vs *values, streams genericiooptions.IOStreams) error {
	if !f.given() && len(f.generate) == 0 {
		return vs.askAll(streams)
	}
	if f.key != "" {
		if err := vs.one(streams, f.key); err != nil {
			return err
		}
	}
	for _, arg := range f.files {
		if err := vs.file(streams, arg); err != nil {
			return err
		}
	}
	for _, arg := range f.literals {
		key, value, ok := strings.Cut(arg, "=")
		if !ok {
			// The argument itself may be the secret.
			return withHint(errors.New("--from-literal: want KEY=VALUE"), "KEY and VALUE are joined by =")
		}
		if err := vs.add("--from-literal", key, []byte(value)); err != nil {
			return err
		}
	}
	for _, path := range f.envFiles {
		if err := vs.envFile(streams, path); err != nil {
			return err
		}
	}
	return f.generateInto(vs, streams.ErrOut)
}

func wipe(byKey map[string][]byte) {
	for _, value := range byKey {
		clear(value)
	}
}

// errNoKey does not quote what is no key: it may be a part of the secret.
func errNoKey(source string) error {
	return fmt.Errorf("%s: not a key: want letters, digits, '-', '_' and '.', 253 of them at most", source)
}

// values are what was read so far.
type values struct {
	byKey     map[string][]byte
	readStdin bool
}

func (vs *values) add(source, key string, value []byte) error {
	if encrypt.ValidateKey(key) != nil {
		return errNoKey(source)
	}
	if _, twice := vs.byKey[key]; twice {
		return fmt.Errorf("%s: key %s is given twice", source, key)
	}
	if len(vs.byKey) == encrypt.MaxKeys {
		return fmt.Errorf("%s: an object has at most %d keys", source, encrypt.MaxKeys)
	}
	vs.byKey[key] = value
	return nil
}

// one takes a single value from standard input.
func (vs *values) one(streams genericiooptions.IOStreams, key string) error {
	if encrypt.ValidateKey(key) != nil {
		return errNoKey("--key")
	}
	if t := terminalOf(streams); t != nil {
		value, err := t.askHidden(key)
		if err != nil {
			return err
		}
		return vs.add("--key", key, value)
	}
	value, err := vs.stdin(streams)
	if err != nil {
		return err
	}
	return vs.add("--key", key, value)
}

func (vs *values) stdin(streams genericiooptions.IOStreams) ([]byte, error) {
	if vs.readStdin {
		return nil, errors.New("standard input can be only one value")
	}
	vs.readStdin = true
	value, err := readBounded(streams, "-", encrypt.MaxValueSize)
	if err == nil && len(value) == 0 {
		// What a program before the pipe leaves that failed. It must not replace
		// a value that works.
		return nil, withHint(fmt.Errorf("standard input %w", errEmptyValue), "if an empty value is meant, say --from-literal KEY=")
	}
	if err == nil && bytes.HasSuffix(value, []byte("\n")) && bytes.Count(value, []byte("\n")) == 1 {
		prose(streams.ErrOut, "note: the value ends with a line break, which is sealed with it")
	}
	return value, err
}

// askAll asks a person for keys and values until they name no more.
func (vs *values) askAll(streams genericiooptions.IOStreams) error {
	t := terminalOf(streams)
	if t == nil {
		return withHint(errors.New("no values to encrypt"), "name a source: --from-file, --from-env-file, --generate, or --key for standard input")
	}
	for {
		key, err := t.ask("key (empty to end): ")
		if err != nil || key == "" {
			return err
		}
		if err := encrypt.ValidateKey(key); err != nil {
			fmt.Fprintf(streams.ErrOut, "that is no key: %v\n", err)
			continue
		}
		if _, twice := vs.byKey[key]; twice {
			fmt.Fprintln(streams.ErrOut, "that key has its value already")
			continue
		}
		value, err := t.askHidden(key)
		if err != nil {
			return err
		}
		if err := vs.add("prompt", key, value); err != nil {
			return err
		}
	}
}

// file takes [KEY=]PATH; of a folder, every regular file whose name is a key.
func (vs *values) file(streams genericiooptions.IOStreams, arg string) error {
	key, path, named := strings.Cut(arg, "=")
	if !named {
		path, key = arg, filepath.Base(arg)
	}
	if named && encrypt.ValidateKey(key) != nil {
		return errNoKey("--from-file")
	}
	if path == "-" {
		if !named {
			return withHint(errors.New("--from-file: standard input has no name to take for a key"), "write KEY=-")
		}
		value, err := vs.stdin(streams)
		if err != nil {
			return err
		}
		return vs.add("--from-file", key, value)
	}
	if named && path == "" {
		return errors.New("--from-file: want [KEY=]PATH")
	}
	info, err := os.Stat(path)
	if err != nil {
		return fileError(key, named, err)
	}
	if !info.IsDir() {
		value, err := readFile(path, encrypt.MaxValueSize)
		if err != nil {
			return fileError(key, named, err)
		}
		return vs.add("--from-file", key, value)
	}
	if named {
		return fmt.Errorf("--from-file: %s is a folder, whose files' names are the keys; it takes no KEY=", path)
	}
	return vs.folder(path)
}

// folder takes every file in path. A name that is no key is an error: to leave the
// file out in silence would lose a secret.
func (vs *values) folder(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("--from-file: %w", err)
	}
	for _, e := range entries {
		file := filepath.Join(path, e.Name())
		// Through links: a mounted Secret consists of them.
		info, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("--from-file: %w", err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		value, err := readFile(file, encrypt.MaxValueSize)
		if err != nil {
			return fmt.Errorf("--from-file: %w", err)
		}
		if err := vs.add("--from-file: "+file, e.Name(), value); err != nil {
			clear(value)
			return err
		}
	}
	return nil
}

// fileError leaves out the path behind KEY=. Who takes --from-file for
// --from-literal has written the secret there.
func fileError(key string, named bool, err error) error {
	var path *fs.PathError
	if !named || !errors.As(err, &path) {
		return fmt.Errorf("--from-file: %w", err)
	}
	err = fmt.Errorf("--from-file: the file for key %s: %w", key, path.Err)
	return withHint(err, "behind %s= goes the path of a file that holds the value", key)
}

// envFile takes lines KEY=VALUE as kubectl does: no quoting, no expansion; empty lines
// and those that start with # are left out.
func (vs *values) envFile(streams genericiooptions.IOStreams, path string) error {
	data, err := readBounded(streams, path, encrypt.MaxFileSize)
	if err != nil {
		return fmt.Errorf("--from-env-file: %w", err)
	}
	defer clear(data)
	return vs.envLines(path, data)
}

// envLines is envFile for a text that was read. The values are copies.
func (vs *values) envLines(path string, data []byte) error {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
		text = bytes.TrimLeft(text, " \t")
		if line == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		source := fmt.Sprintf("%s:%d", path, line)
		key, value, ok := bytes.Cut(text, []byte("="))
		if !ok {
			return fmt.Errorf("%s: want KEY=VALUE", source)
		}
		if err := vs.add(source, string(key), bytes.Clone(value)); err != nil {
			return err
		}
	}
	return nil
}
