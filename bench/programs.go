package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"filippo.io/age"
)

// programs runs the command lines that are compared, each as a whole process,
// with an empty home and without a kubeconfig.
type programs struct {
	dir                     string
	vsecm                   string
	age, kubeseal, sops     string
	hybrid                  *age.HybridRecipient
	classic                 *age.X25519Recipient
	certificate             string // kubeseal's public key
	value, secret, thousand string // what is encrypted
}

func newPrograms(dir, bin, tools string) (*programs, error) {
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, err
	}
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	p := &programs{
		dir:         dir,
		vsecm:       filepath.Join(bin, "kubectl-vsecm"),
		age:         filepath.Join(tools, "age"),
		kubeseal:    filepath.Join(tools, "kubeseal"),
		sops:        filepath.Join(tools, "sops"),
		hybrid:      hybrid.Recipient(),
		classic:     classic.Recipient(),
		certificate: filepath.Join(dir, "cert.pem"),
		value:       filepath.Join(dir, "value"),
		secret:      filepath.Join(dir, "secret.yaml"),
		thousand:    filepath.Join(dir, "thousand"),
	}
	if err := os.Mkdir(p.thousand, 0o755); err != nil {
		return nil, err
	}
	certificate, err := selfSigned()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(p.certificate, certificate, 0o644),
		os.WriteFile(p.value, fmt.Appendf(nil, "%032d", 0), 0o644),
		os.WriteFile(p.secret, secretManifest(0), 0o644),
	)
	for i := range 1000 {
		file := filepath.Join(p.thousand, fmt.Sprintf("s%04d.yaml", i))
		err = errors.Join(err, os.WriteFile(file, secretManifest(i), 0o644))
	}
	return p, err
}

// secretManifest is a plain Secret with one value of 32 bytes, which all of the
// compared programs but age take.
func secretManifest(i int) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Secret
metadata:
  name: s%04d
  namespace: shop
type: Opaque
stringData:
  password: "%032d"
`, i, i)
}

// selfSigned makes a certificate such as sealed-secrets' controller shows: RSA
// of 4096 bits, its default.
func selfSigned() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// process returns a contestant that runs a whole process. want has to be in its
// output: whatever printed nothing sealed has not done the work.
func (p *programs) process(stdin, want string, command ...string) contestant {
	return contestant{filepath.Base(command[0]), func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = p.dir
		cmd.Env = []string{"HOME=" + p.dir, "PATH=" + os.Getenv("PATH")}
		if stdin != "" {
			f, err := os.Open(stdin)
			if err != nil {
				return err
			}
			defer f.Close()
			cmd.Stdin = f
		}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, stderr.Bytes())
		}
		if !bytes.Contains(stdout.Bytes(), []byte(want)) {
			return fmt.Errorf("no %q in what it printed", want)
		}
		return nil
	}}
}

func (p *programs) oneManifest(ctx context.Context, runs int) ([]row, error) {
	const vsecm, header = "YWdlLWVuY3J5cHRpb24", "age-encryption.org"
	medians, err := inTurns(ctx, runs,
		p.process("", vsecm, p.vsecm, "encrypt", "-f", p.secret, "--recipient", p.hybrid.String()),
		p.process("", vsecm, p.vsecm, "encrypt", "-f", p.secret, "--recipient", p.classic.String()),
		p.process(p.secret, "SealedSecret", p.kubeseal, "--cert", p.certificate, "--format", "yaml"),
		p.process("", "BEGIN AGE", p.sops, "encrypt", "--age", p.classic.String(), "--encrypted-regex", "^(data|stringData)$", p.secret),
		p.process(p.value, header, p.age, "-r", p.hybrid.String()),
		p.process(p.value, header, p.age, "-r", p.classic.String()),
	)
	if err != nil {
		return nil, err
	}
	hybrid, classic, kubeseal, sops, ageHybrid, ageClassic := medians[0], medians[1], medians[2], medians[3], medians[4], medians[5]
	const work = "`encrypt` one manifest, whole process"
	return []row{
		{work + ", hybrid", "kubeseal (RSA)", hybrid, kubeseal, 0.6},
		{work + ", hybrid", "sops (classic)", hybrid, sops, 0},
		{work + ", hybrid", "age, hybrid", hybrid, ageHybrid, 2},
		{work + ", classic", "kubeseal (RSA)", classic, kubeseal, 0.6},
		{work + ", classic", "sops (classic)", classic, sops, 0},
		{work + ", classic", "age, classic", classic, ageClassic, 2},
	}, nil
}

func (p *programs) thousandManifests(ctx context.Context, runs int) ([]row, error) {
	var rows []row
	for _, r := range []struct {
		kind      string
		recipient age.Recipient
		text      string
	}{
		{"hybrid", p.hybrid, p.hybrid.String()},
		{"classic", p.classic, p.classic.String()},
	} {
		medians, err := inTurns(ctx, runs,
			p.process("", "s0999", p.vsecm, "encrypt", "-f", p.thousand, "--recipient", r.text),
			contestant{"age library", sealAll(1000, r.recipient)},
		)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			work:   "`encrypt` 1,000 manifests, one call, " + r.kind,
			beside: "1,000 values through the age library, one core",
			ours:   medians[0],
			theirs: medians[1],
			aim:    0.6,
		})
	}
	return rows, nil
}
