package rekey_test

import (
	"encoding/base64"
	"testing"
)

func decode(t *testing.T, sealed string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func encode(raw string) string { return base64.StdEncoding.EncodeToString([]byte(raw)) }
