package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/bech32"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// withKeeper makes the seal a real one, in memory mode, with the key of the test on record.
func withKeeper(s *safe) {
	dir := s.t.TempDir()
	gate := unseal.NewGate()
	s.Cache = cache.New(gate, s.Metrics2(), s.Log)
	keeper := rootkey.New(rootkey.Config{
		Place: rootkey.NewDirPlace(filepath.Join(dir, "root-key.txt"), dir), Memory: true, Gate: gate, Holder: s.Cache, Log: s.Log, Now: s.now,
		Objects: func(context.Context) ([]*v1alpha1.EncryptedSecret, error) { return nil, nil },
	})
	s.RootKey = keeper
}
