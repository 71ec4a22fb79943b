package controlplane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Config returns how a client reaches the API server as the admin, who may do
// everything. It is the caller's to change.
func (cp *ControlPlane) Config() *rest.Config { return rest.CopyConfig(cp.admin) }

// Kubeconfig returns the admin's kubeconfig file.
func (cp *ControlPlane) Kubeconfig() string { return cp.file("admin.kubeconfig") }

// UserKubeconfig returns a kubeconfig file of a person, known by a client
// certificate, who may do what RBAC lets them and their groups.
func (cp *ControlPlane) UserKubeconfig(t testing.TB, user string, groups ...string) string {
	t.Helper()
	config, err := cp.clientConfig(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := writeKubeconfig(file, config); err != nil {
		t.Fatal(err)
	}
	return file
}

// ServiceAccountKubeconfig returns a kubeconfig file of a ServiceAccount, which
// has to exist: with a token in a file, as a pod has it, valid for an hour.
func (cp *ControlPlane) ServiceAccountKubeconfig(t testing.TB, namespace, name string) string {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(cp.Token(t, namespace, name)), 0o600); err != nil {
		t.Fatal(err)
	}
	config := cp.anonymousConfig()
	config.BearerTokenFile = token
	file := filepath.Join(dir, "kubeconfig")
	if err := writeKubeconfig(file, config); err != nil {
		t.Fatal(err)
	}
	return file
}

// Token asks the API server, as the admin, for a token of a ServiceAccount,
// which has to exist. Without an audience it is for the API server itself. It
// is valid for an hour.
func (cp *ControlPlane) Token(t testing.TB, namespace, name string, audiences ...string) string {
	t.Helper()
	seconds := int64(3600)
	body, err := json.Marshal(&authenticationv1.TokenRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: authenticationv1.SchemeGroupVersion.String(), Kind: "TokenRequest"},
		Spec:     authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &seconds},
	})
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("%s/api/v1/namespaces/%s/serviceaccounts/%s/token", cp.admin.Host, namespace, name)
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := cp.do(request)
	if err != nil {
		t.Fatal(err)
	}
	var issued authenticationv1.TokenRequest
	if err := json.Unmarshal(answer, &issued); err != nil {
		t.Fatal(err)
	}
	if issued.Status.Token == "" {
		t.Fatalf("the API server issued no token for %s/%s", namespace, name)
	}
	return issued.Status.Token
}

// anonymousConfig says where the API server is, and how to know it.
func (cp *ControlPlane) anonymousConfig() *rest.Config {
	return &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", cp.port.number),
		TLSClientConfig: rest.TLSClientConfig{CAData: cp.authority.certificatePEM()},
		// A test waits for what happens, not for its turn.
		QPS: -1,
	}
}

// WriteKubeconfig writes a kubeconfig file of a person or component, known by a
// client certificate.
func (cp *ControlPlane) WriteKubeconfig(file, user string, groups ...string) error {
	config, err := cp.clientConfig(user, groups...)
	if err != nil {
		return err
	}
	return writeKubeconfig(file, config)
}

func (cp *ControlPlane) clientConfig(user string, groups ...string) (*rest.Config, error) {
	certificate, key, err := cp.authority.user(user, groups...)
	if err != nil {
		return nil, err
	}
	config := cp.anonymousConfig()
	config.CertData, config.KeyData = certificate, key
	return config, nil
}

// clientFor returns a client with connections of its own, which can be closed.
func clientFor(config *rest.Config) (*http.Client, error) {
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true},
		Timeout:   patience,
	}, nil
}

func writeKubeconfig(file string, config *rest.Config) error {
	const name = "test"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: config.Host, CertificateAuthorityData: config.CAData,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, TokenFile: config.BearerTokenFile,
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, file)
}
