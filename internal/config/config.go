// Package config reads the file that tells Safe, in local mode, what to serve
// from where: safe serve --config FILE.
//
// The file is docs/configuration.md. It is read strictly: a field that does not
// exist is an error with its line, since a misspelt limit or namespace list
// that is ignored would open what it was written to close.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

const (
	maxFileSize       = 1 << 20
	maxCredentialSize = 64 << 10

	// minInterval spares servers; a look at a repository on this machine
	// costs reading one small file.
	minInterval      = time.Second
	minLocalInterval = 10 * time.Millisecond
)

// A Config is what Safe serves in local mode. Paths in the file are relative to the
// file's folder; here they are absolute or relative to the working directory.
type Config struct {
	// DataDir holds the objects, the mirrors and what was applied.
	DataDir string `yaml:"dataDir"`
	// RootKey is the file of the root key. Safe generates it at its first
	// start. Default: root-key.txt in DataDir.
	RootKey string `yaml:"rootKey"`
	// Listen says where each listener listens.
	Listen Listen `yaml:"listen"`
	// SPIFFE says who Safe and its workloads are.
	SPIFFE SPIFFE `yaml:"spiffe"`
	// Sources are the git repositories to deliver from.
	Sources []Source `yaml:"sources"`
}

// Listen holds addresses HOST:PORT; an empty one takes the default, and "-"
// turns a listener off.
type Listen struct {
	API       string `yaml:"api"`       // default :8443; cannot be turned off
	Liveness  string `yaml:"liveness"`  // default :8081
	Readiness string `yaml:"readiness"` // default :8082
	Metrics   string `yaml:"metrics"`   // default :9090
	// Operator is the path of the operator's Unix socket. Default:
	// operator.sock in DataDir.
	Operator string `yaml:"operator"`
}

// Off turns a listener off.
const Off = "-"

// SPIFFE says who Safe and its workloads are.
type SPIFFE struct {
	// Socket is the address of the Workload API, unix:///…. Default:
	// $SPIFFE_ENDPOINT_SOCKET.
	Socket string `yaml:"socket"`
	// Workloads are the patterns that tell a workload from its SPIFFE ID.
	Workloads []string `yaml:"workloads"`
}

// A Source is a branch of a git repository, whose manifests Safe delivers.
type Source struct {
	Name string `yaml:"name"`
	// URL is https://…, http://…, file:///… or an absolute path.
	URL string `yaml:"url"`
	// Branch, default main.
	Branch string `yaml:"branch"`
	// Path is the folder below the root to deliver; empty for all.
	Path string `yaml:"path"`
	// Interval between two looks. Default: 1m, of a repository on this
	// machine's disk 1s.
	Interval time.Duration `yaml:"interval"`
	// Prune deletes what is deleted in git. Default true.
	Prune *bool `yaml:"prune"`
	// Namespaces that the source may deliver into; empty for all.
	Namespaces []string `yaml:"namespaces"`

	// Credentials, each in a file: they do not belong in a configuration.
	Username        string `yaml:"username"`
	PasswordFile    string `yaml:"passwordFile"`
	BearerTokenFile string `yaml:"bearerTokenFile"`
	// CAFile holds the certificates, in PEM, that alone are trusted for the
	// server.
	CAFile string `yaml:"caFile"`
}

// Prunes tells whether what is deleted in git is deleted.
func (s Source) Prunes() bool { return s.Prune == nil || *s.Prune }

// Load reads and checks a file.
func Load(file string) (*Config, error) {
	data, err := readSmall(file, maxFileSize)
	if err != nil {
		return nil, err
	}
	c, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	c.resolve(filepath.Dir(file))
	return c, nil
}

func parse(data []byte) (*Config, error) {
	var c Config
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	c.fillIn()
	if err := c.check(); err != nil {
		return nil, err
	}
	return &c, nil
}

func (c *Config) fillIn() {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&c.Listen.API, ":8443")
	set(&c.Listen.Liveness, ":8081")
	set(&c.Listen.Readiness, ":8082")
	set(&c.Listen.Metrics, ":9090")
	if c.DataDir != "" {
		set(&c.RootKey, filepath.Join(c.DataDir, "root-key.txt"))
		set(&c.Listen.Operator, filepath.Join(c.DataDir, "operator.sock"))
	}
	set(&c.SPIFFE.Socket, os.Getenv("SPIFFE_ENDPOINT_SOCKET"))
	for i := range c.Sources {
		set(&c.Sources[i].Branch, "main")
	}
}

var sourceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$`)

func (c *Config) check() error {
	var errs []error
	fail := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	}
	if c.DataDir == "" {
		fail("dataDir", "missing")
	}
	for _, l := range []struct{ field, address string }{
		{"api", c.Listen.API}, {"liveness", c.Listen.Liveness}, {"readiness", c.Listen.Readiness}, {"metrics", c.Listen.Metrics},
	} {
		if l.address == Off && l.field != "api" {
			continue
		}
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			fail("listen."+l.field, "want HOST:PORT or :PORT: %w", err)
		}
	}
	if c.SPIFFE.Socket == "" {
		fail("spiffe.socket", "missing, and $SPIFFE_ENDPOINT_SOCKET is not set: workloads are told apart by SPIFFE alone")
	}
	if len(c.SPIFFE.Workloads) > 0 {
		if _, err := identity.NewMapper(spiffeid.RequireTrustDomainFromString("example.org"), c.SPIFFE.Workloads...); err != nil {
			fail("spiffe.workloads", "%w", err)
		}
	}
	names := make(map[string]bool)
	for i, s := range c.Sources {
		field := fmt.Sprintf("sources[%d]", i)
		if !sourceName.MatchString(s.Name) {
			fail(field+".name", "want lower-case letters, digits and '-', at most 50")
		}
		if names[s.Name] {
			fail(field+".name", "%s stands there twice", s.Name)
		}
		names[s.Name] = true
		if err := s.check(); err != nil {
			fail(field+"."+s.Name, "%w", err)
		}
	}
	return errors.Join(errs...)
}

func (s Source) check() error {
	switch {
	case s.URL == "":
		return errors.New("url: missing")
	case hasUser(s.URL):
		return errors.New("url: credentials do not belong in it: use username, passwordFile or bearerTokenFile")
	case s.Interval != 0 && s.Interval < s.minInterval():
		return fmt.Errorf("interval: at least %s", s.minInterval())
	case (s.Username == "") != (s.PasswordFile == ""):
		return errors.New("username and passwordFile go together")
	case s.BearerTokenFile != "" && s.Username != "":
		return errors.New("bearerTokenFile and username exclude each other")
	}
	for _, ns := range s.Namespaces {
		if err := encrypt.ValidateNamespace(ns); err != nil {
			return fmt.Errorf("namespaces: %w", err)
		}
	}
	return nil
}

// hasUser reports whether there may be credentials in a URL, also in one that
// cannot be parsed.
func hasUser(s string) bool {
	_, rest, ok := strings.Cut(s, "://")
	host, _, _ := strings.Cut(rest, "/")
	return ok && strings.Contains(host, "@")
}

func (s Source) minInterval() time.Duration {
	if (sync.Remote{URL: s.URL}).Local() {
		return minLocalInterval
	}
	return minInterval
}

// resolve makes relative paths relative to the file's folder.
func (c *Config) resolve(dir string) {
	paths := []*string{&c.DataDir, &c.RootKey, &c.Listen.Operator}
	for i := range c.Sources {
		s := &c.Sources[i]
		paths = append(paths, &s.PasswordFile, &s.BearerTokenFile, &s.CAFile)
	}
	for _, path := range paths {
		if *path != "" && *path != Off && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// ReadCredential reads a file that holds a password or a token, and takes off the
// line break that editors leave. An empty path is an empty credential.
func ReadCredential(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	data, err := readSmall(file, maxCredentialSize)
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return text, nil
}

func readSmall(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, most)
	}
	return data, nil
}
