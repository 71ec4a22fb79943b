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
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
)

const (
	maxFileSize       = 1 << 20
	maxCredentialSize = 64 << 10
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
	// VSecM tells it instead, where there are no patterns: $VSECM_SPIFFEID_PREFIX_WORKLOAD
	// and $VSECM_WORKLOAD_NAME_REGEXP.
	VSecM identity.VSecM `yaml:"-"`
}

// FillIn takes what s leaves out from the environment.
func (s *SPIFFE) FillIn(getenv func(string) string) {
	if s.Socket == "" {
		s.Socket = getenv("SPIFFE_ENDPOINT_SOCKET")
	}
	if len(s.Workloads) == 0 {
		s.VSecM = identity.VSecM{
			Prefix:     getenv("VSECM_SPIFFEID_PREFIX_WORKLOAD"),
			NameRegexp: getenv("VSECM_WORKLOAD_NAME_REGEXP"),
		}
	}
}

// Check tells what is wrong with how workloads are told. flag is how the patterns were given.
func (s *SPIFFE) Check(flag string) error {
	if len(s.Workloads) == 0 {
		if err := s.VSecM.Check(); err != nil {
			return fmt.Errorf("$VSECM_SPIFFEID_PREFIX_WORKLOAD, $VSECM_WORKLOAD_NAME_REGEXP: %w", err)
		}
		return nil
	}
	// Safe's own trust domain is known once it has an SVID.
	if _, err := identity.NewMapper(spiffeid.RequireTrustDomainFromString("example.org"), s.Workloads...); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// Mapper returns what tells workloads of trust domain td.
func (s *SPIFFE) Mapper(td spiffeid.TrustDomain) (*identity.Mapper, error) {
	if s.VSecM != (identity.VSecM{}) {
		return identity.NewVSecMMapper(td, s.VSecM)
	}
	return identity.NewMapper(td, s.Workloads...)
}

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
	c.SPIFFE.FillIn(os.Getenv)
	for i := range c.Sources {
		if c.Sources[i].Tag == "" {
			set(&c.Sources[i].Branch, "main")
		}
	}
}

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
	if err := c.SPIFFE.Check("spiffe.workloads"); err != nil {
		errs = append(errs, err)
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

// resolve makes relative paths relative to the file's folder.
func (c *Config) resolve(dir string) {
	paths := []*string{&c.DataDir, &c.RootKey, &c.Listen.Operator}
	for i := range c.Sources {
		paths = append(paths, c.Sources[i].files()...)
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

// ReadFile reads a file of keys or certificates. An empty path is no file, and nil.
func ReadFile(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	return readSmall(file, maxFileSize)
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
