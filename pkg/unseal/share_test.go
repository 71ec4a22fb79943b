package unseal

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

func TestParseShareReadsWhatTextWrites(t *testing.T) {
	set, shares := splitInto(t, aKey(), 5, 3)
	for i, s := range shares {
		text := string(s.Text())
		if len(text) != shareLength || !strings.HasPrefix(text, "vsecm-share1") {
			t.Fatalf("%d characters, which begin with %.12s", len(text), text)
		}
		for name, given := range map[string]string{
			"as it is":          text,
			"in capitals":       strings.ToUpper(text),
			"with a line break": text + "\r\n",
			"in groups":         text[:12] + "  " + text[12:20] + " " + text[20:40] + "\n\t" + text[40:],
		} {
			got, err := ParseShare([]byte(given))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got.Index() != i+1 || got.Set() != set.ID() || *got.scalar() != *s.scalar() {
				t.Errorf("%s: %v", name, got)
			}
			if err := set.Check(got); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestParseShareRefuses(t *testing.T) {
	set, shares := splitInto(t, aKey(), 3, 2)
	share := shares[0]
	text := string(share.Text())
	scalar := share.scalar()[:]
	order := []byte("\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10")
	swapped := []byte(text)
	swap := len(text) - 2
	for swapped[swap] == swapped[swap-1] {
		swap--
	}
	swapped[swap], swapped[swap-1] = swapped[swap-1], swapped[swap]
	other := func(c byte) string { // than c, of the alphabet
		if c == 'q' {
			return "p"
		}
		return "q"
	}
	for name, test := range map[string]struct {
		text string
		want error
		says string
	}{
		"nothing":                       {"", ErrNotShare, ""},
		"blanks":                        {" \n", ErrNotShare, ""},
		"a word":                        {"hello", ErrNotShare, "begins with vsecm-share1"},
		"a recipient":                   {vsecmRecipient, ErrNotShare, ""},
		"the public file":               {string(set.Text()), ErrNotShare, ""},
		"a root key":                    {string(aKey().Text()), ErrWholeKey, ""},
		"a root key in small":           {strings.ToLower(vsecmIdentity), ErrWholeKey, ""},
		"a hybrid root key":             {string(generate(t, false).Text()), ErrWholeKey, ""},
		"a root key behind much text":   {strings.Repeat(" ", 2000) + vsecmIdentity, ErrWholeKey, ""},
		"too much":                      {text + strings.Repeat(" ", maxShareText), ErrNotShare, ""},
		"the prefix alone":              {"vsecm-share1", ErrTypo, "12 characters, where there should be 98"},
		"half":                          {text[:50], ErrTypo, "50 characters"},
		"a character too many":          {text + "q", ErrTypo, "99 characters"},
		"a character less":              {text[:60] + text[61:], ErrTypo, "97 characters"},
		"two shares":                    {text + "\n" + text, ErrTypo, ""},
		"a wrong first character":       {"w" + text[1:], ErrTypo, "does not begin with"},
		"another prefix's dash":         {strings.Replace(text, "-", "_", 1), ErrTypo, "does not begin with"},
		"an l for the 1":                {strings.Replace(text, "1", "l", 1), ErrTypo, "does not begin with"},
		"a wrong character":             {text[:36] + other(text[36]) + text[37:], ErrTypo, "character 37 of 98"},
		"a wrong checksum character":    {text[:95] + other(text[95]) + text[96:], ErrTypo, "character 96 of 98"},
		"a character that none has":     {text[:36] + "o" + text[37:], ErrTypo, "character 37 is none"},
		"a second 1":                    {text[:36] + "1" + text[37:], ErrTypo, "character 37 is none"},
		"a character beyond ASCII":      {text[:36] + "\xe9" + text[37:], ErrTypo, "character 37 is none"},
		"two characters swapped":        {string(swapped), ErrTypo, "several"},
		"capitals and small letters":    {"V" + text[1:], ErrTypo, "small letters and capitals"},
		"a checksum of bech32":          {bech32Old(t, text), ErrTypo, ""},
		"a later version":               {string(forge(t, payloadOf(2, set.ID(), 1, scalar))), ErrShareVersion, ""},
		"a later version, longer":       {string(forge(t, payloadOf(2, set.ID(), 1, append(scalar[:32:32], 1, 2, 3, 4, 5)))), ErrShareVersion, ""},
		"version 0":                     {string(forge(t, payloadOf(0, set.ID(), 1, scalar))), ErrShareVersion, ""},
		"index 0":                       {string(forge(t, payloadOf(1, set.ID(), 0, scalar))), ErrForged, "index is 0"},
		"a number beyond the order":     {string(forge(t, payloadOf(1, set.ID(), 1, order))), ErrForged, "order"},
		"the largest number":            {string(forge(t, payloadOf(1, set.ID(), 1, bytes.Repeat([]byte{255}, 32)))), ErrForged, "order"},
		"a longer number":               {string(forge(t, payloadOf(1, set.ID(), 1, append(scalar[:32:32], 0)))), ErrTypo, ""},
		"no content":                    {string(forge(t, nil)), ErrTypo, ""},
		"the version alone, all right":  {string(forge(t, []byte{1})), ErrTypo, ""},
		"a share with a comment before": {"alice: " + text, ErrNotShare, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseShare([]byte(test.text))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v, %v; want %v that says %q", got, err, test.want, test.says)
			}
			if got.scalar != nil {
				t.Error("a share is returned, too")
			}
			holdsNoShare(t, "the error", []byte(err.Error()), share, []byte(text))
			holdsNoKey(t, "the error", []byte(err.Error()), vsecmIdentity, vsecmState)
		})
	}
}

func TestEveryWrongCharacterIsFound(t *testing.T) {
	_, shares := splitInto(t, aKey(), 2, 2)
	text := shares[1].Text()
	for at := len(sharePrefix) + 1; at < len(text); at++ {
		for _, c := range []byte("qz5l") {
			if c == text[at] {
				continue
			}
			wrong := bytes.Clone(text)
			wrong[at] = c
			_, err := ParseShare(wrong)
			if want := fmt.Sprintf("character %d of 98", at+1); !errors.Is(err, ErrTypo) || !strings.Contains(err.Error(), want) {
				t.Fatalf("character %d: %v", at+1, err)
			}
		}
	}
}

func TestASharesOwnBytesAreWiped(t *testing.T) {
	set, shares := splitInto(t, aKey(), 2, 2)
	copied, own := shares[0], shares[0].clone()
	shares[0].Wipe()
	if *copied.scalar() != [scalarSize]byte{} || set.Check(copied) == nil {
		t.Error("a copy still holds the share")
	}
	if err := set.Check(own); err != nil {
		t.Error("a share of its own bytes was wiped, too")
	}
	Share{}.Wipe()
}

func TestTheNumbersOfSharesAreWiped(t *testing.T) {
	parts := secretsharing.New(rand.Reader, 1, group.Ristretto255.RandomScalar(rand.Reader)).Share(3)
	wipeParts(append(parts, secretsharing.Share{Value: group.Ristretto255.NewScalar()})) // one that was not read
	for _, part := range parts {
		if !part.Value.IsZero() {
			t.Errorf("share %v is left", part.ID)
		}
	}
}

func TestPromise01_NothingPrintsAShare(t *testing.T) {
	set, shares := splitInto(t, aKey(), 3, 3)
	s := shares[1]
	ceremony := NewCeremony(set, time.Minute, time.Now)
	for _, share := range shares[:2] {
		if _, _, err := ceremony.Add(share); err != nil {
			t.Fatal(err)
		}
	}
	_, progress, duplicate := ceremony.Add(s)
	var list []string
	for _, b := range s.scalar() {
		list = append(list, fmt.Sprint(b))
	}
	raw := s.Text()
	for name, v := range map[string]any{
		"a share": s, "a pointer": &s, "shares": shares, "a map": map[int]Share{1: s}, "a struct": struct{ Share Share }{s},
		"a private field": struct{ share Share }{s}, "a ceremony": ceremony, "progress": progress, "a set": set, "a set's content": *set,
		"a duplicate": duplicate,
	} {
		check := func(how string, text []byte) {
			holdsNoShare(t, name+" "+how, text, s, raw)
			if bytes.Contains(text, []byte(strings.Join(list[:8], " "))) || bytes.Contains(text, []byte(strings.Join(list[:8], ","))) {
				t.Fatalf("%s %s shows a share's bytes", name, how)
			}
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%T", "%p", "%t"} {
			check("as "+verb, fmt.Appendf(nil, verb, v))
		}
		check("printed", fmt.Append(nil, v))
		if text, err := json.Marshal(v); err == nil {
			check("as JSON", text)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		check("in a log", log.Bytes())
	}
	if got, want := fmt.Sprint(s), "share 2 of set "+set.ID().String(); got != want {
		t.Errorf("a share prints as %q, want %q", got, want)
	}
}
