package unseal

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const vectorHybrid = "AGE-SECRET-KEY-PQ-16Z57DHYY05W90CGLU3Z0LVGKDTKTPXQU7HLEW32VZGEH8V2E2Y5S8JUP27"

// A vectorWriter writes a case a file. The keys in them are public, and protect nothing.
type vectorWriter struct{ tb testing.TB }

func (w vectorWriter) file(name string, text []byte) {
	w.tb.Helper()
	if err := os.WriteFile(filepath.Join(vectorsDir, name), text, 0o644); err != nil {
		w.tb.Fatal(err)
	}
}

func (w vectorWriter) write(name, comment, expect string, body []byte, more ...string) {
	w.tb.Helper()
	head := []string{"comment: " + comment, "expect: " + expect}
	w.file(name+".txt", append([]byte(strings.Join(append(head, more...), "\n")+"\n\n"), body...))
}

func TestGenerateVectors(t *testing.T) {
	if !*updateVectors {
		if len(readVectors(t, "share"))+len(readVectors(t, "set"))+len(readVectors(t, "open")) < 30 {
			t.Error("vectors are missing")
		}
		return
	}
	for _, kind := range []string{"*.txt", "*.yaml"} {
		old, err := filepath.Glob(filepath.Join(vectorsDir, kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range old {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(vectorsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	set, shares := splitInto(t, aKey(), 5, 3)
	_, strangers := splitInto(t, aKey(), 5, 3)
	w := vectorWriter{t}
	w.file(ShareSetFile, set.Text())
	w.shares(set, shares, strangers)
	w.sets(set)
	w.openings(set, shares, strangers)
}

func (w vectorWriter) shares(set *ShareSet, shares, strangers []Share) {
	w.tb.Helper()
	one, scalar, id := shares[0].Text(), shares[0].scalar()[:], set.ID()
	share := func(name, comment, expect string, text []byte) {
		w.tb.Helper()
		var more []string
		if s, err := ParseShare(text); err == nil {
			more = append(more, fmt.Sprintf("content: %s %d %s", s.Set(), s.Index(), hex.EncodeToString(s.scalar()[:])))
		}
		w.write("share_"+name, comment, expect, text, more...)
	}
	with := func(at int, c byte) []byte {
		text := bytes.Clone(one)
		if text[at] == c {
			c = 'p'
		}
		text[at] = c
		return text
	}
	for i, s := range shares {
		share(fmt.Sprintf("valid_%d", i+1), fmt.Sprintf("the share %d", i+1), "ok", s.Text())
	}
	share("valid_capitals", "all capitals, as a QR code likes them", "ok", bytes.ToUpper(one))
	share("valid_blanks", "in groups, over two lines", "ok", append(append(append(bytes.Clone(one[:12]), ' '), one[12:50]...), append([]byte("\r\n"), one[50:]...)...))
	share("typo_data", "one character of the data is wrong", "typo", with(40, 'q'))
	share("typo_checksum", "one character of the checksum is wrong", "typo", with(95, 'q'))
	share("typo_alphabet", "a letter that bech32 does not have", "typo", with(40, 'b'))
	share("typo_prefix", "one character of the prefix is wrong", "typo", with(0, 'w'))
	share("typo_case", "one capital", "typo", with(0, 'V'))
	share("typo_short", "a character is missing", "typo", append(bytes.Clone(one[:40]), one[41:]...))
	share("typo_long", "a character too many", "typo", append(bytes.Clone(one), 'q'))
	share("typo_bech32", "the checksum of bech32, where bech32m is meant", "typo", []byte(bech32Old(w.tb, string(one))))
	share("typo_size", "a right checksum, but a byte too many", "typo", forge(w.tb, payloadOf(1, id, 1, append(bytes.Clone(scalar), 0))))
	share("version_2", "a version that is yet to come", "version", forge(w.tb, payloadOf(2, id, 1, scalar)))
	share("forged_number", "another number, with a right checksum", "forged", newShare(id, 1, shares[1].scalar()[:]).Text())
	share("forged_index", "the number of share 1 as share 2", "forged", newShare(id, 2, scalar).Text())
	share("forged_index_6", "an index that the set does not have", "forged", newShare(id, 6, scalar).Text())
	share("forged_index_0", "index 0, which would be the secret itself", "forged", forge(w.tb, payloadOf(1, id, 0, scalar)))
	share("forged_order", "a number that is not below the group's order", "forged", forge(w.tb, payloadOf(1, id, 1, bytes.Repeat([]byte{0xff}, scalarSize))))
	share("other_set", "a share of another set of the same key", "other set", strangers[0].Text())
	share("whole_key", "the root key, where a share is asked for", "whole key", aKey().Text())
	share("not_recipient", "a recipient", "not a share", []byte(vsecmRecipient))
	share("not_empty", "nothing", "not a share", nil)
}

func (w vectorWriter) sets(set *ShareSet) {
	w.tb.Helper()
	text := string(set.Text())
	id := "set-id: " + set.ID().String()
	bad := func(name, comment, old, new string) {
		w.tb.Helper()
		if !strings.Contains(text, old) {
			w.tb.Fatalf("%s: there is no %q", name, old)
		}
		w.write("set_"+name, comment, "malformed", []byte(strings.Replace(text, old, new, 1)))
	}
	w.write("set_valid", "as it was written", "ok", []byte(text), id)
	w.write("set_valid_crlf", "with line breaks of Windows: it is the same set", "ok", []byte(strings.ReplaceAll(text, "\n", "\r\n")), id)
	bad("title", "without its comment", shareSetTitle, "")
	bad("version", "of a version that is yet to come", "vsecmShares: v1", "vsecmShares: v2")
	bad("threshold_0", "a threshold of 0", "threshold: 3", "threshold: 0")
	bad("threshold_1", "a threshold of 1", "threshold: 3", "threshold: 1")
	bad("threshold_6", "a threshold beyond the shares", "threshold: 3", "threshold: 6")
	bad("threshold_sign", "a threshold with a sign", "threshold: 3", "threshold: +3")
	bad("recipient", "a damaged recipient", vsecmRecipient, vsecmRecipient[:30])
	bad("field", "a field more", "shares:\n", "holders: 5\nshares:\n")
	bad("order", "fields in another order", "threshold: 3\nrecipient: "+vsecmRecipient, "recipient: "+vsecmRecipient+"\nthreshold: 3")
	bad("blank", "a blank at the end of a line", "shares:\n", "shares: \n")
	bad("hash_capitals", "a hash in capitals", hex.EncodeToString(set.hashes[0][:]), strings.ToUpper(hex.EncodeToString(set.hashes[0][:])))
	bad("hash_short", "a hash cut off", hex.EncodeToString(set.hashes[0][:]), hex.EncodeToString(set.hashes[0][:31]))
	dear := newShareSet(3, set.recipient, set.hashes, bytes.Replace(set.wrapped, []byte(" 10\n"), []byte(" 22\n"), 1))
	w.write("set_work_factor", "a passphrase that would take 4 GiB", "malformed", dear.Text())
	w.write("set_end", "without its last line break", "malformed", []byte(strings.TrimSuffix(text, "\n")))
}

func (w vectorWriter) openings(set *ShareSet, shares, strangers []Share) {
	w.tb.Helper()
	open := func(name, comment, expect, file string, given ...Share) {
		w.tb.Helper()
		var body []byte
		for _, s := range given {
			body = append(append(body, s.Text()...), '\n')
		}
		more := []string{"set: " + file}
		if expect == "ok" {
			secret, passphrase := between(w.tb, given[:3])
			text, err := os.ReadFile(filepath.Join(vectorsDir, file))
			if err != nil {
				w.tb.Fatal(err)
			}
			opened, err := ParseShareSet(text)
			if err != nil {
				w.tb.Fatal(err)
			}
			key, err := opened.Combine(given...)
			if err != nil {
				w.tb.Fatal(err)
			}
			more = append(more, "secret: "+secret, "passphrase: "+passphrase, "root-key: "+strings.Join(strings.Fields(string(key.Text())), " "))
		}
		w.write("open_"+name, comment, expect, body, more...)
	}
	open("first", "the first three of five", "ok", ShareSetFile, shares[:3]...)
	open("last", "the last three, in another order", "ok", ShareSetFile, shares[4], shares[2], shares[3])
	open("all", "all five", "ok", ShareSetFile, shares...)
	open("few", "two, where three are needed", "too few", ShareSetFile, shares[:2]...)
	open("doubled", "three, one of them twice", "duplicate", ShareSetFile, shares[0], shares[1], shares[1])
	open("foreign", "one of another set", "other set", ShareSetFile, shares[0], shares[1], strangers[2])
	open("forged", "one forged", "forged", ShareSetFile, shares[0], shares[1], newShare(set.ID(), 3, shares[3].scalar()[:]))

	hybrid, err := Parse([]byte(hybridText(w.tb)))
	if err != nil {
		w.tb.Fatal(err)
	}
	hybridSet, hybridShares := splitInto(w.tb, hybrid, 4, 3)
	w.file("hybrid-shares.yaml", hybridSet.Text())
	open("hybrid", "three of four of a hybrid key", "ok", "hybrid-shares.yaml", hybridShares[1:]...)

	damaged := newShareSet(3, set.recipient, set.hashes, hybridSet.wrapped)
	w.file("damaged-shares.yaml", damaged.Text())
	var renamed []Share
	for _, s := range shares[:3] {
		renamed = append(renamed, newShare(damaged.ID(), s.index, s.scalar()[:]))
	}
	open("damaged", "a file that holds what the shares do not open", "damaged", "damaged-shares.yaml", renamed...)
}

func hybridText(tb testing.TB) string {
	tb.Helper()
	k, err := fromIdentity(vectorHybrid)
	if err != nil {
		tb.Fatal(err)
	}
	return vectorHybrid + "\n" + k.Recipient().String() + "\n" + vsecmState + "\n"
}
