package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const source = "https://github.com/vsecm/kubectl-vsecm"

// A file of the image, with the folders above it.
type file struct {
	name string
	mode int64
	body []byte
}

// image is what the Dockerfile builds: the certificates that git over HTTPS is
// checked against, the licence, and the static program, which no user needs to write.
func (r release) image(p v1.Platform, program []byte) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = p.OS, p.Architecture
	config.Created = v1.Time{Time: r.created}
	config.Config = v1.Config{
		// By number: there is no /etc/passwd, and runAsNonRoot cannot judge a name.
		User:         "65532:65532",
		Entrypoint:   []string{"/safe"},
		Cmd:          []string{"serve"},
		ExposedPorts: map[string]struct{}{"8443/tcp": {}, "8444/tcp": {}, "8081/tcp": {}, "8082/tcp": {}, "9090/tcp": {}},
		Labels:       r.labels(),
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}

	certificates, err := roots()
	if err != nil {
		return nil, err
	}
	// The program comes last, since it alone differs between releases.
	for _, f := range []file{
		{"etc/ssl/certs/ca-certificates.crt", 0o444, certificates},
		{"licenses/LICENSE", 0o444, r.license},
		{"safe", 0o555, program},
	} {
		layer, err := f.layer(r.created)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.Append(image, mutate.Addendum{
			Layer:     layer,
			MediaType: types.OCILayer,
			History:   v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "COPY /" + f.name},
		}); err != nil {
			return nil, err
		}
	}
	annotated, ok := mutate.Annotations(image, r.labels()).(v1.Image)
	if !ok {
		return nil, fmt.Errorf("annotations made a %T of an image", annotated)
	}
	return annotated, nil
}

// labels are the annotations that the OCI image specification names.
func (r release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    "Safe",
		"org.opencontainers.image.version":  r.version,
		"org.opencontainers.image.created":  r.created.Format(time.RFC3339),
		"org.opencontainers.image.source":   source,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
}

func (f file) layer(modified time.Time) (v1.Layer, error) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for i, c := range f.name {
		if c != '/' {
			continue
		}
		if err := tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeDir, Format: tar.FormatUSTAR,
			Name: f.name[:i+1], Mode: 0o755, ModTime: modified,
		}); err != nil {
			return nil, err
		}
	}
	if err := writeFile(tw, f.name, f.mode, f.body, modified); err != nil {
		return nil, err
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer),
	)
}

// roots are Mozilla's root certificates, as PEM. One that is trusted only for
// what it signed until some day is left out: a file of certificates cannot say so.
func roots() ([]byte, error) {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		certificate, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, fmt.Errorf("root certificate: %w", err)
		}
		fmt.Fprintf(&b, "# %s\n", certificate.Subject)
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}
