package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/sops"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// candidatesIn decrypts one file, if SOPS has encrypted it. The error stands against the others, too.
func (o *importSOPSOptions) candidatesIn(ctx context.Context, f manifestFile) ([]importCandidate, error) {
	named := slices.Contains(o.paths, f.path)
	failed := func(err error) []importCandidate {
		o.any = true
		return []importCandidate{{source: f.path, err: err}}
	}
	data, err := readFile(f.path, sops.MaxFileSize)
	switch {
	case errors.Is(err, errLarger) && !named: // more than an object may hold, whatever it is
		return nil, nil
	case err != nil:
		return failed(err), nil
	}
	info, encrypted := sops.Detect(f.path, data)
	switch {
	case !encrypted && named:
		return failed(errors.New("SOPS has not encrypted it")), nil
	case !encrypted:
		return nil, nil
	}
	o.any = true
	plain, err := o.program.Decrypt(ctx, f.path, info.Format)
	if err != nil {
		o.noKey = o.noKey || errors.Is(err, sops.ErrNoKey)
		return failed(err), ctx.Err()
	}
	defer clear(plain)
	made, err := o.of(f, info, plain)
	for n := range made {
		made[n].since(info, o.now)
	}
	return made, err
}

// of makes candidates of what a file holds.
func (o *importSOPSOptions) of(f manifestFile, info sops.Info, plain []byte) ([]importCandidate, error) {
	if info.Format == sops.YAML || info.Format == sops.JSON {
		made, skipped, err := o.read(f, plain)
		var fault *encrypt.Fault
		switch {
		case err != nil && !errors.As(err, &fault):
			return made, err
		case len(made) > 0:
			o.skipped += skipped
			return made, nil
		case fault != nil && mentionsSecret().Match(plain):
			return []importCandidate{{source: f.path, err: fault}}, nil
		case fault == nil && manifestMark().Match(plain):
			return []importCandidate{{source: f.path, err: leftError{"a manifest of another kind than Secret"}}}, nil
		}
	}
	return o.whole(f, info, plain)
}

// manifest finds a manifest of Kubernetes'.
var manifestMark = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^\s*"?apiVersion"?\s*:`) })

// whole makes an object of a file that is no Kubernetes Secret.
func (o *importSOPSOptions) whole(f manifestFile, info sops.Info, plain []byte) ([]importCandidate, error) {
	blank := importCandidate{source: f.path, secret: filepath.Base(f.path)}
	failed := func(err error) []importCandidate {
		blank.err = err
		return []importCandidate{blank}
	}
	key := sops.PlainName(f.path)
	name := o.name
	if name == "" {
		name = objectName(key)
	}
	if err := encrypt.ValidateName(name); err != nil {
		return failed(fmt.Errorf("no object may be named like the file; name it with --name: %w", err)), nil
	}
	namespaces, err := o.namespacesOf("", f)
	if err != nil {
		return nil, err
	}
	var made []importCandidate
	for _, namespace := range namespaces {
		c := blank
		c.object = newImported(namespace, name)
		c.values = make(map[string][]byte)
		vs := values{byKey: c.values}
		if info.Format == sops.Dotenv {
			c.err = vs.envLines(f.path, plain)
		} else if err := vs.add(f.path, key, bytes.Clone(plain)); err != nil {
			c.err = fmt.Errorf("its name cannot be a key: %w", err)
		}
		if c.err == nil && len(c.values) == 0 {
			c.err = errors.New("it holds no value")
		}
		made = append(made, o.delivered(c, f))
	}
	return made, nil
}

// delivered says how an object is delivered that was no Kubernetes Secret.
func (o *importSOPSOptions) delivered(c importCandidate, f manifestFile) importCandidate {
	secretType := o.p.rule(f.path).SecretType
	if o.deliverGiven {
		secretType = ""
		if o.deliver {
			secretType = encrypt.DefaultSecretType
		}
	}
	if secretType != "" {
		c.deliverAs(v1alpha1.SecretDelivery{Type: secretType})
		return c
	}
	c.notef("the workload of its name may fetch it; with --deliver it becomes a Kubernetes Secret too")
	return c
}

// since takes over when the values became what they are.
func (c *importCandidate) since(info sops.Info, now func() time.Time) {
	switch at := info.LastModified; {
	case at.IsZero():
	case at.After(now()):
		c.notef("it was modified in the future, on %s: the time of the import takes its place", stamp(at))
	default:
		c.sealedAt, c.updated = at, at
	}
}

// objectName returns the name of an object for a file: without the extension that says how it is written, and in the
// letters that a name may have.
func objectName(file string) string {
	switch extension := filepath.Ext(file); extension {
	case ".yaml", ".yml", ".json", ".env", ".ini", ".txt":
		if rest := strings.TrimSuffix(file, extension); rest != "" {
			file = rest
		}
	}
	file = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, file)
	return strings.Trim(file, ".-")
}
