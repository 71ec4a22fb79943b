package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if runChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

func openDir(t testing.TB, dir string) *store.Dir {
	t.Helper()
	d, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	return d
}

func TestDir(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openDir(t, t.TempDir()) })
}

func mustApply(t testing.TB, s store.Store, name, data string) {
	t.Helper()
	if _, err := s.Apply(t.Context(), "shop.main", storetest.Object("shop", name, data)); err != nil {
		t.Fatal(err)
	}
}

func valueOf(t testing.TB, s store.Store, name string) string {
	t.Helper()
	o, err := s.Get(t.Context(), store.Key{Namespace: "shop", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return o.Spec.EncryptedData["password"]
}

func TestDirIsTheSameAfterReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	long := strings.Repeat("a", 253)
	d := openDir(t, dir)
	mustApply(t, d, "db", "one")
	mustApply(t, d, "gone", "one")
	mustApply(t, d, long, "long")
	mustApply(t, d, long[:252]+"b", "longer")
	if err := d.Delete(t.Context(), "shop.main", store.Key{Namespace: "shop", Name: "gone"}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = openDir(t, dir)
	if fs := d.Faults(); len(fs) > 0 {
		t.Errorf("faults: %v", fs)
	}
	for name, want := range map[string]string{"db": "one", long: "long", long[:252] + "b": "longer"} {
		if got := valueOf(t, d, name); got != want {
			t.Errorf("%.10s holds %q, want %q", name, got, want)
		}
	}
	if all, err := d.List(t.Context()); err != nil || len(all) != 3 {
		t.Errorf("%d objects, %v", len(all), err)
	}
	if changed, err := d.Apply(t.Context(), "shop.main", storetest.Object("shop", "db", "one")); err != nil || changed {
		t.Errorf("the same object after reopening: %t, %v", changed, err)
	}
}

func TestDirKeepsItsFilesPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d := openDir(t, dir)
	mustApply(t, d, "db", "one")
	for path, want := range map[string]os.FileMode{
		".":                    os.ModeDir | 0o700,
		"objects":              os.ModeDir | 0o700,
		"objects/shop":         os.ModeDir | 0o700,
		"objects/shop/db.yaml": 0o600,
		"lock":                 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s is %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestDirHasOneOpener(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	if _, err := store.OpenDir(dir); !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second opener got: %v", err)
	}
	mustApply(t, d, "db", "one")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	openDir(t, dir)
}

func TestClosedDirRefusesEverything(t *testing.T) {
	d := openDir(t, t.TempDir())
	mustApply(t, d, "db", "one")
	synced := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- d.Watch(t.Context(), func(e store.Event) {
			if e.Type == store.Synced {
				close(synced)
			}
		})
	}()
	<-synced
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, store.ErrClosed) {
		t.Errorf("Watch ended with %v", err)
	}
	key := store.Key{Namespace: "shop", Name: "db"}
	_, getErr := d.Get(t.Context(), key)
	_, listErr := d.List(t.Context())
	_, applyErr := d.Apply(t.Context(), "shop.main", storetest.Object("shop", "db", "two"))
	for call, err := range map[string]error{
		"Get": getErr, "List": listErr, "Apply": applyErr,
		"Delete": d.Delete(t.Context(), "shop.main", key),
		"Watch":  d.Watch(t.Context(), func(store.Event) {}),
		"Close":  d.Close(),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

func TestPromise06_OneBadFileHarmsOnlyItself(t *testing.T) {
	const good = "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata:\n  namespace: shop\n  name: bad\n" +
		"  labels:\n    vsecm.com/source: shop.main\nspec:\n  encryptedData: {}\n"
	outside := filepath.Join(t.TempDir(), "outside.yaml")
	if err := os.WriteFile(outside, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	plant := func(content string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]func(t *testing.T, path string){
		"an empty file":         plant(""),
		"cut off":               plant(good[:150]),
		"not YAML":              plant("\t{"),
		"another kind":          plant(strings.Replace(good, "EncryptedSecret", "Secret", 1)),
		"an unknown field":      plant(good + "  surprise: 1\n"),
		"a doubled field":       plant(good + "  encryptedData: {}\n"),
		"two documents":         plant(good + "---\n" + good),
		"another object's name": plant(strings.Replace(good, "bad", "db", 1)),
		"a name that climbs":    plant(strings.Replace(good, "name: bad", "name: ../../x", 1)),
		"100,000 keys":          plant(good[:len(good)-3] + "\n" + strings.Repeat("    k: v\n", 100_000)),
		"3 MiB":                 plant(good + "#" + strings.Repeat("#", 3<<20)),
		"a YAML bomb":           plant("a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n"),
		"a directory": func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"a link out": func(t *testing.T, path string) {
			if err := os.Symlink(outside, path); err != nil {
				t.Fatal(err)
			}
		},
		"a link to another object": func(t *testing.T, path string) {
			if err := os.Symlink("db.yaml", path); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, plant := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := openDir(t, dir)
			mustApply(t, d, "db", "one")
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			bad := filepath.Join(dir, "objects/shop/bad.yaml")
			plant(t, bad)

			d = openDir(t, dir)
			if got := valueOf(t, d, "db"); got != "one" {
				t.Errorf("the good object holds %q", got)
			}
			if all, err := d.List(t.Context()); err != nil || len(all) != 1 {
				t.Errorf("%d objects are served, %v", len(all), err)
			}
			fs := d.Faults()
			if len(fs) != 1 || fs[0].Path != "objects/shop/bad.yaml" || fs[0].Err == nil {
				t.Fatalf("faults: %v", fs)
			}
			if _, err := os.Lstat(bad); err != nil {
				t.Errorf("the bad file was not left in place: %v", err)
			}
			if name == "a directory" {
				if err := os.Remove(bad); err != nil {
					t.Fatal(err)
				}
			}
			mustApply(t, d, "bad", "good now")
			if fs := d.Faults(); len(fs) != 0 {
				t.Errorf("faults after Apply: %v", fs)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = openDir(t, dir)
			if got := valueOf(t, d, "bad"); got != "good now" {
				t.Errorf("after Apply and reopening it holds %q", got)
			}
			if got, err := os.ReadFile(outside); err != nil || string(got) != good {
				t.Errorf("a file outside was written: %v", err)
			}
		})
	}
}

// A file that cannot be read is put right by the source that it came from, and
// is no other one's to take.
func TestDirGivesNobodyWhatItCannotTellToBeTheirs(t *testing.T) {
	whole := "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata:\n  name: bad\n  labels:\n    vsecm.com/source: shop.main\n    odd\n"
	for name, tt := range map[string]struct {
		content     string
		main, other bool // which may write it
	}{
		"with its owner":              {whole, true, false},
		"with its owner, in quotes":   {strings.ReplaceAll(strings.ReplaceAll(whole, "shop.main", `'shop.main'`), "vsecm.com/source", `"vsecm.com/source"`), true, false},
		"with another owner":          {strings.ReplaceAll(whole, "shop.main", "shop.other"), false, true},
		"with two owners":             {whole + "    vsecm.com/source: shop.other\n", false, false},
		"with an empty owner":         {strings.ReplaceAll(whole, "shop.main", `""`), false, false},
		"by hand, with a typo":        {"apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata:\n  nmae: bad\n", false, false},
		"too large, with its owner":   {whole + strings.Repeat("#", 3<<20), true, false},
		"overwritten":                 {"{{{", true, true},
		"empty":                       {"", true, true},
		"of zeros, as a crash leaves": {strings.Repeat("\x00", 4096), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []struct {
				owner string
				may   bool
			}{{"shop.main", tt.main}, {"shop.other", tt.other}} {
				for call, do := range map[string]func(d *store.Dir) error{
					"Apply": func(d *store.Dir) error {
						_, err := d.Apply(t.Context(), o.owner, storetest.Object("shop", "bad", "x"))
						return err
					},
					"Delete": func(d *store.Dir) error {
						return d.Delete(t.Context(), o.owner, store.Key{Namespace: "shop", Name: "bad"})
					},
				} {
					dir := t.TempDir()
					path := filepath.Join(dir, "objects/shop/bad.yaml")
					if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
						t.Fatal(err)
					}
					d := openDir(t, dir)
					if err := do(d); o.may && err != nil || !o.may && !errors.Is(err, store.ErrNotOwned) {
						t.Errorf("%s by %s: %v", call, o.owner, err)
					}
					if got, err := os.ReadFile(path); !o.may && (err != nil || string(got) != tt.content) {
						t.Errorf("%s by %s changed the file: %v", call, o.owner, err)
					}
				}
			}
		})
	}
}

func TestDirRefusesADirectoryThatOthersMayWriteTo(t *testing.T) {
	for _, sub := range []string{".", "objects", "sources"} {
		for mode, ok := range map[os.FileMode]bool{0o700: true, 0o750: true, 0o755: true, 0o770: false, 0o702: false, 0o777: false, os.ModeSticky | 0o777: false} {
			dir := t.TempDir()
			folder := filepath.Join(dir, sub)
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(folder, mode); err != nil {
				t.Fatal(err)
			}
			d, err := store.OpenDir(dir)
			if err == nil {
				var j *store.Journal
				if j, err = store.OpenJournal(dir); err == nil {
					err = j.Close()
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
			if ok && err != nil || !ok && !errors.Is(err, store.ErrExposed) {
				t.Errorf("%s with mode %v: %v", sub, mode, err)
			}
		}
	}
}

func TestDirDeletesAFileThatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "objects/shop/bad.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, dir)
	if err := d.Delete(t.Context(), "shop.main", store.Key{Namespace: "shop", Name: "bad"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if fs := d.Faults(); len(fs) != 0 {
		t.Errorf("faults: %v", fs)
	}
}

func TestDirReportsWhatIsNoObject(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	for _, folder := range []string{"objects/shop", "sources"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"objects/stray", "objects/shop/db.yaml~", "objects/.db.yaml123456", "sources/.shop.main.json99"} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "objects/web")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("shop", filepath.Join(dir, "objects/alias")); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, dir)
	openJournal(t, dir)
	var got []string
	for _, f := range d.Faults() {
		got = append(got, f.Path)
	}
	if strings.Join(got, " ") != "objects/alias objects/shop/db.yaml~ objects/stray objects/web" {
		t.Errorf("faults: %v", got)
	}
	for _, left := range []string{"objects/.db.yaml123456", "sources/.shop.main.json99"} {
		if _, err := os.Lstat(filepath.Join(dir, left)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was not removed: %v", left, err)
		}
	}
	for _, ns := range []string{"web", "alias"} {
		if _, err := d.Apply(t.Context(), "shop.main", storetest.Object(ns, "db", "one")); err == nil {
			t.Errorf("an object was written through the link %s", ns)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside the data directory: %v, %v", entries, err)
	}
}

func TestDirLeavesAloneWhatHasNoOwner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "objects/shop/db.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	manifest := "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: shop}\nspec: {encryptedData: {password: mine}}\n"
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, dir)
	if _, err := d.Apply(t.Context(), "shop.main", storetest.Object("shop", "db", "theirs")); !errors.Is(err, store.ErrNotOwned) {
		t.Errorf("Apply: %v", err)
	}
	if err := d.Delete(t.Context(), "shop.main", store.Key{Namespace: "shop", Name: "db"}); !errors.Is(err, store.ErrNotOwned) {
		t.Errorf("Delete: %v", err)
	}
	if got := valueOf(t, d, "db"); got != "mine" {
		t.Errorf("it holds %q", got)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != manifest {
		t.Errorf("the file changed: %v", err)
	}
}

func TestDirRefusesWhatItCouldNotReadAgain(t *testing.T) {
	d := openDir(t, t.TempDir())
	mustApply(t, d, "db", "one")
	if _, err := d.Apply(t.Context(), "shop.main", storetest.Object("shop", "db", strings.Repeat("x", 2<<20))); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("Apply: %v", err)
	}
	if got := valueOf(t, d, "db"); got != "one" {
		t.Errorf("it holds %.10q", got)
	}
}
