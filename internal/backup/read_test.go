package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

// An archive of two objects, as its entries:
// FORMAT, a/db/encryptedsecret.yaml, a/db/secret.yaml, b/db/encryptedsecret.yaml, b/db/secret.yaml, backup.json.
func (r *rig) sample(t testing.TB) []entry {
	archive, _ := r.write(t, r.contents(r.object(t, "a", "db", small()), r.object(t, "b", "db", small())))
	return r.entriesOf(t, archive)
}

func TestAHostileArchiveIsRefused(t *testing.T) {
	r := newRig(t)
	sample := r.sample(t)
	swap := func(es []entry, i, j int) []entry { es[i], es[j] = es[j], es[i]; return es }
	head := func(edit func(*tar.Header)) func(es []entry) []entry {
		return func(es []entry) []entry {
			edit(&es[2].Header)
			es[2].text = es[2].text[:es[2].Size]
			return es
		}
	}
	text := func(i int, edit func(string) string) func(es []entry) []entry {
		return func(es []entry) []entry { es[i] = plainEntry(es[i].Name, edit(es[i].text)); return es }
	}
	insert := func(i int, e entry) func(es []entry) []entry {
		return func(es []entry) []entry { return slices.Insert(es, i, e) }
	}
	index := func(edit func(*Summary)) func(es []entry) []entry {
		return text(5, func(s string) string {
			var summary Summary
			if err := json.Unmarshal([]byte(s), &summary); err != nil {
				t.Fatal(err)
			}
			edit(&summary)
			return string(must(json.Marshal(summary))(t))
		})
	}
	manifest, secret := sample[1].text, sample[2].text
	for name, test := range map[string]struct {
		edit func([]entry) []entry
		want error
		says string
	}{
		"many small things in backup.json": {text(5, func(s string) string {
			return `{"sources":[{}` + strings.Repeat(",{}", 300_000) + "]," + s[1:]
		}), ErrTooLarge, "entry backup.json: it has many more items"},
		"of nothing":            {func([]entry) []entry { return nil }, ErrFormat, "no tar"},
		"foreign":               {func([]entry) []entry { return []entry{plainEntry("README", "x")} }, ErrFormat, "first entry is not FORMAT"},
		"foreign with a FORMAT": {text(0, func(string) string { return "something else\n" }), ErrFormat, `says "something else"`},
		"of an older format":    {text(0, func(string) string { return "vsecm.com/backup/v0\n" }), ErrFormat, `format "vsecm.com/backup/v0"`},
		"of a newer format":     {text(0, func(string) string { return "vsecm.com/backup/v2\n" }), ErrFormat, "this program reads vsecm.com/backup/v1"},
		"of no object's name":   {insert(1, plainEntry("notes.txt", "x")), ErrFormat, `"notes.txt"`},
		"that climbs out":       {insert(1, plainEntry("../../etc/encryptedsecret.yaml", "x")), ErrFormat, "../../etc/encryptedsecret.yaml"},
		"that climbs further":   {insert(1, plainEntry("a/../encryptedsecret.yaml", "x")), ErrFormat, "a/../"},
		"with a rooted path":    {insert(1, plainEntry("/a/db/encryptedsecret.yaml", "x")), ErrFormat, "/a/db"},
		"with a dot":            {insert(1, plainEntry("./a/db/encryptedsecret.yaml", "x")), ErrFormat, "./a/db"},
		"of capitals":           {insert(1, plainEntry("A/db/encryptedsecret.yaml", "x")), ErrFormat, "A/db"},
		"with a folder":         {insert(1, entry{tar.Header{Typeflag: tar.TypeDir, Name: "a/db/encryptedsecret.yaml/", Mode: 0o600}, ""}), ErrFormat, "a/db"},
		"with a symbolic link":  {head(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/shadow", 0 }), ErrFormat, "no regular file"},
		"with a hard link":      {head(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeLink, "a/db/encryptedsecret.yaml", 0 }), ErrFormat, "no regular file"},
		"with a device":         {head(func(h *tar.Header) { h.Typeflag, h.Devmajor, h.Size = tar.TypeChar, 1, 0 }), ErrFormat, "no regular file"},
		"that is executable":    {head(func(h *tar.Header) { h.Mode = 0o755 }), ErrFormat, "mode"},
		"with setuid":           {head(func(h *tar.Header) { h.Mode = 0o4600 }), ErrFormat, "mode"},
		"of somebody":           {head(func(h *tar.Header) { h.Uid = 1000 }), ErrFormat, "owner"},
		"of GNU's tar":          {head(func(h *tar.Header) { h.Format = tar.FormatGNU }), ErrFormat, "another form of tar"},
		"with an attribute": {head(func(h *tar.Header) {
			h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.user.x": "y"}
		}), ErrFormat, "SCHILY"},
		"with global records":               {insert(1, entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "x", PAXRecords: map[string]string{"path": "a"}, Format: tar.FormatPAX}, ""}), ErrFormat, "entry"},
		"with an entry twice":               {func(es []entry) []entry { return slices.Insert(es, 2, es[1]) }, ErrFormat, "a/db/encryptedsecret.yaml"},
		"with a secret twice":               {func(es []entry) []entry { return slices.Insert(es, 3, es[2]) }, ErrFormat, "a/db/secret.yaml"},
		"with FORMAT twice":                 {func(es []entry) []entry { return slices.Insert(es, 1, es[0]) }, ErrFormat, "FORMAT"},
		"with two indices":                  {func(es []entry) []entry { return append(es, es[5]) }, ErrFormat, "backup.json"},
		"that goes on":                      {func(es []entry) []entry { return append(es, plainEntry("c/db/encryptedsecret.yaml", manifest)) }, ErrFormat, "c/db"},
		"in another order":                  {func(es []entry) []entry { return swap(swap(es, 1, 3), 2, 4) }, ErrFormat, "a/db/encryptedsecret.yaml"},
		"with secrets first":                {func(es []entry) []entry { return swap(es, 1, 2) }, ErrFormat, "a/db/secret.yaml"},
		"with the index first":              {func(es []entry) []entry { return swap(es, 1, 5) }, ErrDamaged, "objects"},
		"without an index":                  {func(es []entry) []entry { return es[:5] }, ErrDamaged, "ends before backup.json"},
		"without an object":                 {func(es []entry) []entry { return slices.Delete(es, 3, 5) }, ErrDamaged, "objects"},
		"without a secret":                  {func(es []entry) []entry { return slices.Delete(es, 4, 5) }, ErrDamaged, "values"},
		"with another value":                {text(2, func(s string) string { return strings.Replace(s, "aHVudGVyMg==", "aHVudGVyMw==", 1) }), ErrDamaged, "a/db/secret.yaml"},
		"with another manifest":             {text(1, func(s string) string { return s + "# x\n" }), ErrDamaged, "a/db/encryptedsecret.yaml"},
		"with a key late":                   {func(es []entry) []entry { return slices.Insert(es, 3, plainEntry("root-key.txt", "x")) }, ErrFormat, "root-key.txt"},
		"with a key unsaid":                 {func(es []entry) []entry { return slices.Insert(es, 1, plainEntry("root-key.txt", "x")) }, ErrDamaged, "rootKey"},
		"with retired keys alone":           {func(es []entry) []entry { return slices.Insert(es, 1, plainEntry("retired-keys.txt", "x")) }, ErrFormat, "retired-keys.txt"},
		"with a Secret of another object":   {text(2, func(s string) string { return strings.Replace(s, `"db"`, `"dc"`, 1) }), ErrFormat, "a/db/secret.yaml"},
		"with a Secret of another spelling": {text(2, func(s string) string { return strings.Replace(s, `"Opaque"`, `Opaque`, 1) }), ErrFormat, "a/db/secret.yaml"},
		"with an anchor":                    {text(2, func(s string) string { return s + "  \"x\": &a \"\"\n" }), ErrFormat, "value 3 is malformed"},
		"with half a line":                  {text(2, func(s string) string { return strings.TrimSuffix(s, "\n") }), ErrFormat, "value 2 is malformed"},
		"with keys out of order":            {text(2, func(s string) string { return s + "  \"a\": \"\"\n" }), ErrFormat, "key a"},
		"with a key that is none":           {text(2, func(s string) string { return s + "  \"../x\": \"\"\n" }), ErrFormat, "the key of value 3"},
		"with no base64":                    {text(2, func(s string) string { return strings.Replace(s, "aHVudGVyMg==", "aHVudGVyMg=", 1) }), ErrFormat, "key password: not standard base64"},
		"with loose base64":                 {text(2, func(s string) string { return strings.Replace(s, "aHVudGVyMg==", "aHVudGVyMh==", 1) }), ErrFormat, "key password: not standard base64"},
		"with a wrong count":                {index(func(s *Summary) { s.Objects++ }), ErrDamaged, "objects"},
		"with a wrong sum":                  {index(func(s *Summary) { s.Values++ }), ErrDamaged, "values"},
		"of another format inside":          {index(func(s *Summary) { s.Format = "vsecm.com/backup/v2" }), ErrDamaged, "format"},
		"with a digest too few":             {index(func(s *Summary) { delete(s.SHA256, "FORMAT") }), ErrDamaged, "digests"},
		"with another digest":               {index(func(s *Summary) { s.SHA256["FORMAT"] = s.SHA256["a/db/secret.yaml"] }), ErrDamaged, "FORMAT"},
		"with another list":                 {index(func(s *Summary) { s.Secrets[0].Name = "x" }), ErrDamaged, "a/db"},
		"with other keys":                   {index(func(s *Summary) { s.Secrets[0].Keys = []string{"x"} }), ErrDamaged, "a/db"},
		"of other namespaces":               {index(func(s *Summary) { s.Namespaces = []string{"a"} }), ErrDamaged, "b/db"},
		"that hides what it lacks": {func(es []entry) []entry {
			es[2] = plainEntry(es[2].Name, strings.Replace(secret, "  \"empty\": \"\"\n", "", 1))
			var s Summary
			if err := json.Unmarshal([]byte(es[5].text), &s); err != nil {
				t.Fatal(err)
			}
			s.Values, s.Secrets[0].Keys = s.Values-1, []string{"password"}
			s.SHA256[es[2].Name] = hexDigest(es[2].text)
			es[5] = plainEntry(es[5].Name, string(must(json.Marshal(s))(t)))
			return es
		}, ErrDamaged, "lacks values"},
		"with an unknown field":    {text(5, func(s string) string { return strings.Replace(s, "{", `{"x":1,`, 1) }), ErrFormat, "backup.json"},
		"with two in one":          {text(5, func(s string) string { return s + "{}" }), ErrFormat, "backup.json"},
		"with an index of no JSON": {text(5, func(string) string { return "format: x" }), ErrFormat, "backup.json"},
		"with an empty index":      {text(5, func(string) string { return "" }), ErrFormat, "backup.json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := readAll(bytes.NewReader(r.pack(t, test.edit(slices.Clone(sample))...)), r.identity)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "aHVudGVy") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("it quotes a value: %v", err)
			}
		})
	}
	if _, _, err := readAll(bytes.NewReader(r.pack(t, sample...)), r.identity); err != nil {
		t.Fatalf("the sample itself: %v", err)
	}
}

func TestAnArchiveThatIsCutOffIsNeverWhole(t *testing.T) {
	r := newRig(t)
	archive := r.pack(t, r.sample(t)...)
	for n := range archive {
		if n%7 != 0 && n < len(archive)-600 {
			continue
		}
		if _, _, err := readAll(bytes.NewReader(archive[:n]), r.identity); err == nil {
			t.Fatalf("%d bytes of %d are an archive", n, len(archive))
		}
	}
	plain := must(io.ReadAll(must(age.Decrypt(bytes.NewReader(archive), r.identity))(t)))(t)
	for n := 0; n < len(plain); n += 256 { // within what age vouches for
		_, _, err := readAll(bytes.NewReader(r.encrypt(t, plain[:n])), r.identity)
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
			t.Fatalf("%d bytes of %d: %v", n, len(plain), err)
		}
	}
}

func TestAnArchiveWithOneBitChangedIsRefused(t *testing.T) {
	r := newRig(t)
	archive := r.pack(t, r.sample(t)...)
	for i := 0; i < len(archive); i += 3 {
		changed := bytes.Clone(archive)
		changed[i] ^= 1 << (i % 8)
		if _, _, err := readAll(bytes.NewReader(changed), r.identity); err == nil {
			t.Fatalf("byte %d of %d is not looked at", i, len(archive))
		}
	}
}

func TestAnArchiveThatIsPaddedIsRefused(t *testing.T) {
	r := newRig(t)
	archive := r.pack(t, r.sample(t)...)
	plain := must(io.ReadAll(must(age.Decrypt(bytes.NewReader(archive), r.identity))(t)))(t)
	for name, padded := range map[string][]byte{
		"after the age file": append(bytes.Clone(archive), 'x'),
		"a line's end":       append(bytes.Clone(archive), '\n'),
		"a second age file":  append(bytes.Clone(archive), archive...),
		"after the tar":      r.encrypt(t, append(bytes.Clone(plain), 'x')),
		"zeros":              r.encrypt(t, append(bytes.Clone(plain), make([]byte, 512)...)),
		"a second tar":       r.encrypt(t, append(bytes.Clone(plain), plain...)),
		"less of the end":    r.encrypt(t, plain[:len(plain)-512]),
		"no end":             r.encrypt(t, plain[:len(plain)-1024]),
	} {
		if _, _, err := readAll(bytes.NewReader(padded), r.identity); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// endless returns an archive that write goes on writing until nobody reads.
func (r *rig) endless(t testing.TB, write func(*tar.Writer) error) io.Reader {
	out, in := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w, err := age.Encrypt(in, r.identity.Recipient())
		if err == nil {
			err = write(tar.NewWriter(w))
		}
		in.CloseWithError(errors.Join(err, io.ErrUnexpectedEOF))
	}()
	t.Cleanup(func() { out.Close(); <-ended })
	return out
}

func TestAnEntryOfTenGigabytesIsRefusedUnread(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"FORMAT", "root-key.txt", "a/db/encryptedsecret.yaml", "backup.json"} {
		written := 0
		archive := r.endless(t, func(w *tar.Writer) error {
			if name != "FORMAT" {
				e := plainEntry("FORMAT", Format+"\n")
				if err := errors.Join(w.WriteHeader(&e.Header), second(io.WriteString(w, e.text))); err != nil {
					return err
				}
			}
			e := plainEntry(name, "")
			e.Size, e.Format = 10<<30, tar.FormatPAX
			if err := w.WriteHeader(&e.Header); err != nil {
				return err
			}
			for block := make([]byte, 64<<10); ; written += len(block) {
				if _, err := w.Write(block); err != nil {
					return err
				}
			}
		})
		_, _, err := readAll(archive, r.identity)
		if name == "FORMAT" && !errors.Is(err, ErrFormat) || name != "FORMAT" && (!errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrFormat)) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAMillionEntriesAreTooMany(t *testing.T) {
	r := newRig(t)
	archive := r.endless(t, func(w *tar.Writer) error {
		e := plainEntry("FORMAT", Format+"\n")
		for i := 0; ; i++ {
			if err := errors.Join(w.WriteHeader(&e.Header), second(io.WriteString(w, e.text))); err != nil {
				return err
			}
			if i == 1_000_000 {
				return w.Close()
			}
			e = plainEntry(fmt.Sprintf("a/%07d/encryptedsecret.yaml", i), "")
		}
	})
	b := must(NewReader(archive, r.identity))(t)
	if b.most != 2*MaxObjects+4 {
		t.Errorf("%d entries are taken", b.most)
	}
	b.most = 20_000 // as many as that take a while
	for n := 0; ; n++ {
		if _, err := b.Next(); err != nil {
			if !errors.Is(err, ErrTooLarge) || n < b.most-2 || n > b.most {
				t.Errorf("after %d: %v", n, err)
			}
			return
		}
	}
}

func hexDigest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
