package sops

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes this binary be the programs that the tests call, too.
func TestMain(m *testing.M) {
	if play := os.Getenv("SOPS_TEST_PLAY"); play != "" {
		os.Exit(plays[play](os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

const planted = "hunter2-is-the-password"

var plays = map[string]func(args []string) int{
	"arguments": func(args []string) int {
		os.Stdout.WriteString(strings.Join(args, "\n") + "\n" + os.Getenv("SOPS_AGE_KEY_FILE") + "\n" + os.Getenv("SOPS_HC_VAULT_ALLOWLIST"))
		return 0
	},
	"flood": func([]string) int {
		for block := []byte(strings.Repeat("x", 1<<20)); ; {
			if _, err := os.Stdout.Write(block); err != nil {
				return 1
			}
		}
	},
	"no key": func([]string) int {
		os.Stderr.WriteString("Failed to get the data key required to decrypt the SOPS file.\n\nGroup 0: FAILED\n  age1abc: FAILED\n    - | no identity matched " +
			planted + "\n\n  " + strings.Repeat("k", 2000) + ": FAILED\n" + strings.Repeat("\n", 1<<20))
		return exitNoKey
	},
	"changed": func([]string) int {
		os.Stderr.WriteString("MAC mismatch. File has " + planted)
		return exitMACDiffers
	},
	"odd": func([]string) int {
		os.Stdout.WriteString(planted)
		os.Stderr.WriteString(planted)
		return 77
	},
	"stuck": func([]string) int {
		time.Sleep(time.Hour) // ended before
		return 0
	},
}

func player(t *testing.T, play string) *Program {
	t.Helper()
	t.Setenv("SOPS_TEST_PLAY", play)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Program{path: self, KeyFile: "keys.txt"}
}

func TestProgramIsCalledAsSOPSIs(t *testing.T) {
	t.Setenv("SOPS_HC_VAULT_ALLOWLIST", "")
	t.Setenv("VAULT_ADDR", "")
	out, err := player(t, "arguments").Decrypt(t.Context(), "--rotate", Dotenv)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := "decrypt\n--input-type\ndotenv\n--output-type\ndotenv\n" + filepath.Join(folder, "--rotate") + "\nkeys.txt\nnone"
	if string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestAFileDoesNotSayWhereTheTokenOfVaultGoes(t *testing.T) {
	for name, c := range map[string]struct{ address, own, want string }{
		"no Vault":            {"", "", "none"},
		"a Vault":             {"https://vault.test", "", "https://vault.test"},
		"everywhere":          {"all", "", "none"},
		"the caller's choice": {"https://vault.test", "all", "all"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("VAULT_ADDR", c.address)
			t.Setenv("SOPS_HC_VAULT_ALLOWLIST", c.own)
			out, err := player(t, "arguments").Decrypt(t.Context(), "file", YAML)
			if lines := strings.Split(string(out), "\n"); err != nil || lines[len(lines)-1] != c.want {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
}

func TestErrorsTellThemselvesApartAndQuoteNothing(t *testing.T) {
	for play, want := range map[string]struct {
		is   error
		text string
	}{
		"no key":  {ErrNoKey, "none of the keys at hand opens it: it is encrypted to age1abc, " + strings.Repeat("k", 100) + "…"},
		"changed": {ErrChanged, ErrChanged.Error()},
		"odd":     {nil, "exit code 77"},
		"flood":   {nil, "it holds more than 4194304 bytes"},
	} {
		t.Run(play, func(t *testing.T) {
			out, err := player(t, play).Decrypt(t.Context(), "file", YAML)
			switch {
			case err == nil || out != nil:
				t.Fatalf("%d bytes, %v", len(out), err)
			case want.is != nil && !errors.Is(err, want.is), !strings.Contains(err.Error(), want.text):
				t.Errorf("got %v, want %v %q", err, want.is, want.text)
			case strings.Contains(err.Error(), planted):
				t.Errorf("quotes what the program said: %v", err)
			}
		})
	}
}

func TestDecryptEndsWithItsContext(t *testing.T) {
	p := player(t, "stuck")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Decrypt(ctx, "file", YAML); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestFindTakesTheProgramThatGivesPlaintextToPipesAlone(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("PATH", folder)
	if _, err := Find(); !errors.Is(err, ErrNoProgram) {
		t.Errorf("without one: %v", err)
	}
	for _, name := range []string{"sops", "vsecm-sops"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		p, err := Find()
		if err != nil || p.path != filepath.Join(folder, name) {
			t.Errorf("with %s: %+v, %v", name, p, err)
		}
	}
	t.Chdir(folder)
	t.Setenv("PATH", ".")
	if p, err := Find(); !errors.Is(err, ErrNoProgram) && !errors.Is(err, exec.ErrDot) {
		t.Errorf("a program in the working directory was taken: %+v, %v", p, err)
	}
}

func TestDetect(t *testing.T) {
	at := time.Date(2026, 11, 23, 5, 31, 24, 0, time.UTC)
	for name, c := range map[string]struct {
		file, text string
		want       Format // none: it is not SOPS'
		modified   time.Time
	}{
		"YAML":                 {"a.yaml", "a: ENC[x]\nsops:\n    age: []\n    lastmodified: \"2026-11-23T05:31:24Z\"\n    mac: ENC[x]\n", YAML, at},
		"YAML of another name": {"a.yaml.enc", "a: ENC[x]\r\nsops:\r\n    mac: ENC[x]\r\n", YAML, time.Time{}},
		"JSON":                 {"a.json", `{"a":"ENC[x]","sops":{"lastmodified":"x","mac":"ENC[x]"}}`, JSON, time.Time{}},
		"JSON, indented":       {"a.json", "{\n\t\"data\": \"ENC[x]\",\n\t\"sops\": {\n\t\t\"lastmodified\": \"2026-11-23T05:31:24Z\",\n\t\t\"mac\": \"ENC[x]\"\n\t}\n}", JSON, at},
		"JSON in a YAML file":  {"a.yml", `{"a":"ENC[x]","sops":{"mac":"ENC[x]"}}`, YAML, time.Time{}},
		"binary":               {"tls.key", `{"data":"ENC[x]","sops":{"mac":"ENC[x]"}}`, Binary, time.Time{}},
		"binary, .env":         {"a.env", `{"data":"ENC[x]","sops":{"mac":"ENC[x]"}}`, Binary, time.Time{}},
		"dotenv":               {".env", "A=ENC[x]\nsops_lastmodified=2026-11-23T05:31:24Z\nsops_mac=ENC[x]\n", Dotenv, at},
		"dotenv, other name":   {".env.prod", "A=ENC[x]\nsops_mac=ENC[x]\n", Dotenv, time.Time{}},
		"INI":                  {"a.ini", "[a]\nb = ENC[x]\n\n[sops]\nlastmodified = 2026-11-23T05:31:24Z\nmac = ENC[x]\n", INI, at},
		"the last time counts": {"a.yaml", "lastmodified: 2020-01-01T00:00:00Z\nsops:\n  lastmodified: 2026-11-23T05:31:24Z\n  mac: x\n", YAML, at},
		"talks of sops":        {"README.md", "Use sops: it has a mac.\n", "", time.Time{}},
		"creation rules":       {".sops.yaml", "creation_rules:\n- age: age1abc # mac\n", "", time.Time{}},
		"a field called sops":  {"a.json", `{"sops":"mac"}`, "", time.Time{}},
		"no MAC":               {"a.json", `{"sops":{"machine":"x"}}`, "", time.Time{}},
		"broken JSON":          {"a.json", `{"sops":{"mac":"x"}`, "", time.Time{}},
		"empty":                {"a", "", "", time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			info, is := Detect(c.file, []byte(c.text))
			if is != (c.want != "") || info.Format != c.want || !info.LastModified.Equal(c.modified) {
				t.Errorf("got %+v, %v", info, is)
			}
		})
	}
}

func TestPlainName(t *testing.T) {
	for file, want := range map[string]string{
		"a/db.enc.yaml": "db.yaml", "db.sops.json": "db.json", "tls.key.enc": "tls.key", "prod.encrypted.env": "prod.env", "x.sops": "x",
		"db.yaml": "db.yaml", ".env": ".env", ".enc": ".enc", ".enc.yaml": ".enc.yaml", "fence.yaml": "fence.yaml",
	} {
		if got := PlainName(file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

func FuzzDetect(f *testing.F) {
	for _, text := range []string{"a: ENC[x]\nsops:\n  mac: x\n", `{"data":"x","sops":{"mac":"x"}}`, "sops_mac=x\n", "[sops]\nmac=x\n", "{"} {
		f.Add("a.yaml", []byte(text))
		f.Add("a", []byte(text))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		info, is := Detect(name, data)
		if is != (info.Format != "") {
			t.Errorf("%+v, %v", info, is)
		}
		if PlainName(name) == "" {
			t.Error("no name")
		}
	})
}
