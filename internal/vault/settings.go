package vault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Settings say which Vault is meant, and who asks. They have the names that Vault's own command gives them.
type Settings struct {
	Address   *url.URL // VAULT_ADDR
	Token     string   // VAULT_TOKEN, or what ~/.vault-token holds
	Namespace string   // VAULT_NAMESPACE: Vault's, not Kubernetes'
	TLS       *tls.Config
}

var (
	// ErrNoToken: nobody has logged in.
	ErrNoToken = errors.New("there is no token: neither VAULT_TOKEN nor ~/.vault-token has one")
	// ErrAddress: an address that no secret may be sent through, or that is none.
	ErrAddress = errors.New("VAULT_ADDR")
)

const (
	defaultAddress = "https://127.0.0.1:8200"
	maxTokenSize   = 64 << 10
)

// FromEnvironment reads the settings as Vault's command does, from variables of the environment and the file of its token in the
// home folder. Certificates are always verified, whatever VAULT_SKIP_VERIFY says. Errors: [ErrNoToken], [ErrAddress].
func FromEnvironment(getenv func(string) string, home string) (*Settings, error) {
	s := &Settings{Namespace: strings.Trim(getenv("VAULT_NAMESPACE"), "/")}
	var err error
	if s.Address, err = parseAddress(getenv("VAULT_ADDR")); err != nil {
		return nil, err
	}
	if s.TLS, err = tlsFrom(getenv); err != nil {
		return nil, err
	}
	s.Token, err = token(getenv, home)
	return s, err
}

func parseAddress(text string) (*url.URL, error) {
	if text == "" {
		text = defaultAddress
	}
	address, err := url.Parse(text)
	switch {
	case err != nil || address.Host == "" || address.User != nil || address.RawQuery != "" || address.Fragment != "":
		return nil, fmt.Errorf("%w: not an address such as https://vault.example.com:8200", ErrAddress) // it may hold a password
	case address.Scheme == "https":
	case address.Scheme != "http":
		return nil, fmt.Errorf("%w: %s: only https addresses are read", ErrAddress, address.Scheme)
	case !isLoopback(address.Hostname()):
		return nil, fmt.Errorf("%w: token and secrets would go to %s in the clear: it has to be https", ErrAddress, address.Host)
	}
	return address, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func tlsFrom(getenv func(string) string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: getenv("VAULT_TLS_SERVER_NAME")}
	files := []string{getenv("VAULT_CACERT")}
	variable := "VAULT_CACERT"
	if dir := getenv("VAULT_CAPATH"); files[0] == "" && dir != "" {
		variable = "VAULT_CAPATH"
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		files = nil
		for _, entry := range entries {
			if !entry.IsDir() {
				files = append(files, filepath.Join(dir, entry.Name()))
			}
		}
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		if config.RootCAs == nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(text) && variable == "VAULT_CACERT" {
			return nil, fmt.Errorf("%s: %s holds no certificate in PEM", variable, file)
		}
	}
	if cert, key := getenv("VAULT_CLIENT_CERT"), getenv("VAULT_CLIENT_KEY"); cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("VAULT_CLIENT_CERT, VAULT_CLIENT_KEY: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func token(getenv func(string) string, home string) (string, error) {
	text := getenv("VAULT_TOKEN")
	if text == "" && home != "" {
		data, err := os.ReadFile(filepath.Join(home, ".vault-token"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", err
		case len(data) > maxTokenSize:
			return "", fmt.Errorf("%w: ~/.vault-token is larger than a token is", ErrNoToken)
		}
		text = string(data)
		clear(data)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", ErrNoToken
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%w: what stands there is none", ErrNoToken)
	}
	return text, nil
}
