// Vsecm-sops decrypts one file of SOPS for 'kubectl vsecm import sops', with SOPS' own library. Its arguments, and what
// its exit codes mean, are those of 'sops decrypt', so that either program serves.
//
// It does less than sops: the file comes out in its own form, and through a pipe alone. So no plaintext gets to
// a disk or a terminal by mistake. Its errors never quote what is in the file.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/cmd/sops/codes"
	"github.com/getsops/sops/v3/decrypt"
	"github.com/getsops/sops/v3/logging"
	"github.com/sirupsen/logrus"
)

// version is set when it is built.
var version = "dev"

const usage = `vsecm-sops decrypts one file of SOPS for 'kubectl vsecm import sops'.

  vsecm-sops decrypt [--input-type TYPE] [--output-type TYPE] FILE

TYPE is yaml, json, dotenv, ini or binary, the same twice; by default that of the
file's name. What the file holds goes to standard output, which has to be a pipe. The
keys are found where sops finds them: $SOPS_AGE_KEY_FILE, $SOPS_AGE_KEY,
$SOPS_AGE_KEY_CMD, ~/.config/sops/age/keys.txt, PGP, the services of clouds.

Exit codes, as those of sops: 0 done, 1 error, 2 the file cannot be read, 25 a
value cannot be decrypted, 51 the file was changed by something else than sops,
128 none of the keys opens it.
`

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// maxSize is what is read at most, in bytes: far more than a Kubernetes object may hold.
const maxSize = 16 << 20

// A failure has an exit code of sops'.
type failure struct {
	code int
	text string
}

func (f failure) Error() string { return f.text }

func run(args []string, out *os.File, errOut io.Writer) int {
	// SOPS logs to standard error, and may quote what it was given.
	logging.SetLevel(logrus.PanicLevel)
	err := command(args, out)
	if err == nil {
		return 0
	}
	fmt.Fprintln(errOut, "error:", err)
	var f failure
	if errors.As(err, &f) {
		return f.code
	}
	return codes.ErrorGeneric
}

func command(args []string, out *os.File) error {
	switch {
	case len(args) == 1 && slices.Contains([]string{"-h", "--help", "help"}, args[0]):
		_, err := io.WriteString(out, usage)
		return err
	case len(args) == 1 && slices.Contains([]string{"-v", "--version", "version"}, args[0]):
		_, err := fmt.Fprintln(out, "vsecm-sops", version)
		return err
	case len(args) == 0 || args[0] != "decrypt":
		return errors.New("want decrypt FILE; see vsecm-sops --help")
	}
	flags := flag.NewFlagSet("decrypt", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	from, to := flags.String("input-type", "", ""), flags.String("output-type", "", "")
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w; see vsecm-sops --help", err)
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("%d files, where one is expected", flags.NArg())
	}
	format, err := formatOf(flags.Arg(0), *from, *to)
	if err != nil {
		return err
	}
	info, err := out.Stat()
	if err != nil {
		return err
	}
	if info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
		return errors.New("standard output is no pipe: what is decrypted goes to no terminal and no file; use sops for that")
	}
	data, err := read(flags.Arg(0))
	if err != nil {
		return failure{codes.CouldNotReadInputFile, err.Error()}
	}
	plain, err := open(data, format)
	if err != nil {
		return err
	}
	defer clear(plain)
	_, err = out.Write(plain)
	return err
}

var formats = []string{"yaml", "json", "dotenv", "ini", "binary"}

// formatOf returns the one form of the input and the output.
func formatOf(file, from, to string) (string, error) {
	for flag, format := range map[string]string{"input": from, "output": to} {
		if format != "" && !slices.Contains(formats, format) {
			return "", fmt.Errorf("--%s-type: want %s", flag, strings.Join(formats, ", "))
		}
	}
	switch {
	case from == "" && to == "":
		return byName(file), nil
	case from != "" && to != "" && from != to, from == "" && to != byName(file):
		return "", errors.New("--output-type: a file comes out in its own form; use sops for another")
	case from == "":
		return to, nil
	}
	return from, nil
}

// byName returns the form that SOPS takes a file for.
func byName(file string) string {
	for suffix, format := range map[string]string{".yaml": "yaml", ".yml": "yaml", ".json": "json", ".env": "dotenv", ".ini": "ini"} {
		if strings.HasSuffix(file, suffix) {
			return format
		}
	}
	return "binary"
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s is larger than %d bytes", file, maxSize)
	}
	return data, err
}

// open decrypts a file. The library's errors may quote what is in it, and the one on a change gives hashes of it: none
// is passed on but what SOPS says on keys.
func open(data []byte, format string) ([]byte, error) {
	plain, err := decrypt.Data(data, format)
	if err == nil {
		return plain, nil
	}
	var user sops.UserError
	text := err.Error()
	switch {
	case errors.As(err, &user):
		return nil, failure{codes.CouldNotRetrieveKey, user.UserError()}
	case errors.Is(err, sops.MetadataNotFound):
		return nil, errors.New("the file has no metadata of SOPS")
	case strings.HasPrefix(text, "Failed to verify data integrity"):
		return nil, failure{codes.MacMismatch, "the file was changed by something else than sops: its MAC does not match"}
	case strings.HasPrefix(text, "Failed to decrypt original mac"):
		return nil, failure{codes.ErrorDecryptingMac, "the MAC of the file cannot be decrypted"}
	case strings.HasPrefix(text, "Error walking tree"):
		return nil, failure{codes.ErrorDecryptingTree, "a value of the file cannot be decrypted"}
	}
	return nil, failure{codes.CouldNotReadInputFile, "the file cannot be read as " + format}
}
