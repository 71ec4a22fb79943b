// Package vaultserver stands in for a Vault with KV secrets engines. It answers as Vault 1.21 does, whose answers were recorded
// where they are told apart by more than a code: Vault itself takes too long to build for a test.
package vaultserver

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Token is the one that every server takes.
const Token = "hvs.CAESIKtestonly"

// A Secret is one of a KV version 2 engine.
type Secret struct {
	Data           map[string]any
	Created        time.Time
	DeletesAt      time.Time // when it deletes itself; in the past, it has
	Deleted        bool
	Destroyed      bool
	CustomMetadata map[string]string
}

// A Server is one Vault. Its fields are set before it is asked.
type Server struct {
	URL string
	CA  string // of its certificate, PEM; empty for http

	Namespace string // that has the engines
	// Mounts maps a mount, without slashes around it, to its type: kv-v2, kv-v1 or another.
	Mounts map[string]string
	// Secrets maps mount and path below it.
	Secrets map[string]Secret
	// Denied are paths below engines, such as secret/metadata/ops, which the token's policy leaves out.
	Denied []string
	// Answer answers in Vault's place where it returns true.
	Answer func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	asked []string
}

// Start starts a server with an engine secret, which ends with the test. secure has it speak TLS.
func Start(t testing.TB, secure bool) *Server {
	t.Helper()
	s := &Server{Mounts: map[string]string{"secret": "kv-v2"}, Secrets: make(map[string]Secret)}
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not know its certificate
	if secure {
		server.StartTLS()
		s.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Asked returns the paths that were asked for, in order.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func fail(w http.ResponseWriter, code int, errors ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, errors...)})
}

func tell(w http.ResponseWriter, code int, data any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"request_id": "5c7f1a2e-0000-4000-8000-000000000000", "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": data, "wrap_info": nil, "warnings": nil, "auth": nil, "mount_type": "kv",
	})
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	s.mu.Lock()
	s.asked = append(s.asked, path)
	s.mu.Unlock()
	switch {
	case s.Answer != nil && s.Answer(w, r):
	case r.Header.Get("X-Vault-Token") != Token:
		fail(w, http.StatusForbidden, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	case r.Header.Get("X-Vault-Namespace") != s.Namespace || slices.Contains(s.Denied, path):
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		s.mount(w, strings.TrimPrefix(path, "sys/internal/ui/mounts/"))
	default:
		s.kv(w, r, path)
	}
}

// mountOf returns the engine that a path leads to.
func (s *Server) mountOf(path string) string {
	for _, mount := range slices.Sorted(maps.Keys(s.Mounts)) {
		if path == mount || strings.HasPrefix(path, mount+"/") {
			return mount
		}
	}
	return ""
}

func (s *Server) mount(w http.ResponseWriter, path string) {
	mount := s.mountOf(path)
	if mount == "" {
		fail(w, http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to path \""+path+"/\"")
		return
	}
	data := map[string]any{"path": mount + "/", "type": "kv", "options": map[string]string{"version": "2"}, "description": ""}
	switch kind := s.Mounts[mount]; kind {
	case "kv-v2":
	case "kv-v1":
		data["options"] = map[string]string{"version": "1"}
	default:
		data["type"], data["options"] = kind, nil
	}
	tell(w, http.StatusOK, data)
}

func (s *Server) kv(w http.ResponseWriter, r *http.Request, path string) {
	mount := s.mountOf(path)
	what, below, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, mount), "/"), "/")
	full := strings.TrimSuffix(mount+"/"+below, "/")
	secret, is := s.Secrets[full]
	switch {
	case mount == "":
		fail(w, http.StatusNotFound, "no handler for route \""+path+"\". route entry not found.")
	case what == "metadata" && r.URL.Query().Get("list") == "true":
		keys := s.under(full)
		if len(keys) == 0 {
			fail(w, http.StatusNotFound)
			return
		}
		tell(w, http.StatusOK, map[string]any{"keys": keys})
	case !is:
		fail(w, http.StatusNotFound)
	case what == "metadata":
		tell(w, http.StatusOK, map[string]any{"created_time": stamp(secret.Created), "current_version": 1})
	case what == "data":
		s.data(w, secret)
	default:
		fail(w, http.StatusNotFound)
	}
}

func (s *Server) data(w http.ResponseWriter, secret Secret) {
	metadata := map[string]any{
		"created_time": stamp(secret.Created), "custom_metadata": secret.CustomMetadata,
		"deletion_time": stamp(secret.DeletesAt), "destroyed": secret.Destroyed, "version": 1,
	}
	if secret.CustomMetadata == nil {
		metadata["custom_metadata"] = nil
	}
	if secret.Deleted || secret.Destroyed {
		tell(w, http.StatusNotFound, map[string]any{"data": nil, "metadata": metadata})
		return
	}
	tell(w, http.StatusOK, map[string]any{"data": secret.Data, "metadata": metadata})
}

func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// under lists a folder.
func (s *Server) under(folder string) []string {
	found := make(map[string]bool)
	for path := range s.Secrets {
		rest, within := strings.CutPrefix(path, folder+"/")
		if !within {
			continue
		}
		name, _, deeper := strings.Cut(rest, "/")
		if deeper {
			name += "/"
		}
		found[name] = true
	}
	return slices.Sorted(maps.Keys(found))
}
