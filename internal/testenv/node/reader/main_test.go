package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAReadIsOfOneWholeVersion(t *testing.T) {
	long := strings.Repeat("1\n", 5000) + "1 end\n"
	for name, tc := range map[string]struct {
		a, b, want, fault string
	}{
		"whole":                     {"1 end\n", long, "1", ""},
		"of two versions":           {"2 end\n", long, "", "b is of version 1, and what was read before it of 2"},
		"half of one":               {"1 end\n", long[:4096], "", "b: 4096 bytes that are not one whole version"},
		"one in the place of parts": {"1 end\n", "2\n2\n" + long[4:], "", "that are not one whole version"},
		"empty":                     {"", long, "", "a: 0 bytes"},
		"missing":                   {"1 end\n", "", "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "v1", "db"), 0o700); err != nil {
				t.Fatal(err)
			}
			for link, target := range map[string]string{"..data": "v1", "db": "..data/db"} {
				if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			for key, content := range map[string]string{"a": tc.a, "b": tc.b} {
				if key == "b" && content == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, "db", key), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r := &reader{dir: dir, object: "db", keys: []string{"a", "b"}}
			version, err := r.read()
			if version != tc.want {
				t.Errorf("it read version %q, not %q", version, tc.want)
			}
			if tc.fault == "" && err != nil || tc.fault != "" && (err == nil || !strings.Contains(err.Error(), tc.fault)) {
				t.Errorf("%v, not %q", err, tc.fault)
			}
			if tc.fault == "" {
				return
			}
			r.run() // ends with a fault, however often it may be asked to read again
			if r.Fault == "" {
				t.Error("no fault is told")
			}
		})
	}
}
