package encrypt

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// damaged are values that were changed by somebody who holds no key.
func (m maker) damaged() {
	long := noise(2*chunkSize + 100)
	replace := func(old, new string) func(raw []byte, header int) []byte {
		return func(raw []byte, header int) []byte {
			if !bytes.Contains(raw[:header], []byte(old)) {
				m.Fatalf("no %s in the header", old)
			}
			return bytes.Replace(raw, []byte(old), []byte(new), 1)
		}
	}
	at := strconv.FormatInt(aTime.Unix(), 10)
	body := base64.RawStdEncoding.EncodeToString([]byte(aBinding.body()))
	moved := with(aBinding, func(b *Binding) { b.Namespace = "evil" })

	m.bytes("edited_time", "the time was changed: the MAC is wrong", "malformed", "ok", true, aValue, replace(at, "1767225599"))
	m.bytes("edited_body", "the place was changed, and the value stands there: the MAC is wrong", "malformed", "ok", true, aValue, replace(body, base64.RawStdEncoding.EncodeToString([]byte(moved.body()))))
	moving := m.vectors["edited_body"]
	moving.binding = moved
	m.vectors["edited_body"] = moving
	m.bytes("edited_removed", "the binding was cut out: a plain age file with a wrong MAC", "unbound", "unbound", false, aValue, func(raw []byte, _ int) []byte {
		from := bytes.Index(raw, []byte("-> "+stanzaType))
		to := bytes.Index(raw, []byte("-> X25519"))
		return slices.Delete(raw, from, to)
	})
	m.bytes("edited_key_id", "names a key that is held, and was sealed to another", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		return replace(string(recipientsOf(m, classicSecret)[0].KeyID()), string(recipientsOf(m, otherClassicSecret)[0].KeyID()))(raw, header)
	})
	other := m.vectors["edited_key_id"]
	other.identities = []string{otherClassicSecret}
	m.vectors["edited_key_id"] = other
	m.bytes("edited_mac", "a bit of the header's MAC was changed", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		if raw[header-10]++; raw[header-10] == '9'+1 || raw[header-10] == 'z'+1 || raw[header-10] == 'Z'+1 || raw[header-10] == '+'+1 || raw[header-10] == '/'+1 {
			raw[header-10] = 'A'
		}
		return raw
	})
	m.bytes("edited_nonce", "a bit of the payload's nonce was changed", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		raw[header] ^= 1
		return raw
	})
	m.bytes("edited_payload", "a bit of the payload was changed", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		raw[header+payloadNonceSize] ^= 1
		return raw
	})
	m.bytes("edited_tag", "a bit of the payload's tag was changed", "malformed", "ok", true, aValue, func(raw []byte, _ int) []byte {
		raw[len(raw)-1] ^= 1
		return raw
	})
	m.bytes("edited_chunks_swapped", "two chunks changed places", "malformed", "ok", true, long, func(raw []byte, header int) []byte {
		const chunk = chunkSize + chunkTagSize
		first := header + payloadNonceSize
		return slices.Concat(raw[:first], raw[first+chunk:first+2*chunk], raw[first:first+chunk], raw[first+2*chunk:])
	})

	truncate := func(name, comment string, open, check string, privateKey bool, value []byte, at func(header, size int) int) {
		m.bytes("truncated_"+name, comment, open, check, privateKey, value, func(raw []byte, header int) []byte { return raw[:at(header, len(raw))] })
	}
	truncate("nothing_left", "no bytes at all", "malformed", "malformed", false, aValue, func(_, _ int) int { return 0 })
	truncate("intro", "cut off in the first line", "malformed", "malformed", false, aValue, func(_, _ int) int { return 10 })
	truncate("after_intro", "cut off behind the first line", "malformed", "malformed", false, aValue, func(_, _ int) int { return len("age-encryption.org/v1\n") })
	truncate("stanza", "cut off in the binding", "malformed", "malformed", false, aValue, func(_, _ int) int { return 60 })
	truncate("recipient", "cut off in the recipient's stanza", "malformed", "malformed", false, aValue, func(header, _ int) int { return header - 70 })
	truncate("mac", "cut off in the header's MAC", "malformed", "malformed", false, aValue, func(header, _ int) int { return header - 10 })
	truncate("mac_line_break", "cut off before the line break behind the header's MAC", "malformed", "malformed", false, aValue, func(header, _ int) int { return header - 1 })
	truncate("after_header", "no payload", "malformed", "malformed", false, aValue, func(header, _ int) int { return header })
	truncate("nonce", "cut off in the payload's nonce", "malformed", "malformed", false, aValue, func(header, _ int) int { return header + 8 })
	truncate("after_nonce", "a nonce, and no chunk", "malformed", "malformed", false, aValue, func(header, _ int) int { return header + payloadNonceSize })
	truncate("only_tag", "cut off in the only chunk, where it could be an empty one", "malformed", "ok", true, aValue, func(header, _ int) int { return header + payloadNonceSize + chunkTagSize })
	truncate("payload", "the last byte is missing", "malformed", "ok", true, aValue, func(_, size int) int { return size - 1 })
	truncate("first_chunk", "cut off in the first of three chunks", "malformed", "ok", true, long, func(header, _ int) int { return header + payloadNonceSize + 1000 })
	truncate("chunk_boundary", "the last chunk is missing", "malformed", "ok", true, long, func(header, _ int) int {
		return header + payloadNonceSize + 2*(chunkSize+chunkTagSize)
	})
	truncate("last_chunk_few_bytes", "of the last chunk there is less than a tag", "malformed", "ok", true, long, func(header, _ int) int {
		return header + payloadNonceSize + 2*(chunkSize+chunkTagSize) + 5
	})
	truncate("last_chunk_a_tag", "of the last chunk there is as much as an empty one", "malformed", "ok", true, long, func(header, _ int) int {
		return header + payloadNonceSize + 2*(chunkSize+chunkTagSize) + chunkTagSize
	})
	m.bytes("trailing_bytes", "a byte behind the payload", "malformed", "ok", true, aValue, func(raw []byte, _ int) []byte { return append(raw, 'x') })
	m.bytes("trailing_bytes_full_chunk", "a byte behind a last chunk that is full", "malformed", "ok", true, noise(chunkSize), func(raw []byte, _ int) []byte { return append(raw, 'x') })
	m.bytes("trailing_file", "a second file behind the first", "malformed", "ok", true, aValue, func(raw []byte, _ int) []byte { return append(raw, raw...) })
	m.bytes("crlf_header", "a header with CRLF", "malformed", "malformed", false, aValue, func(raw []byte, header int) []byte {
		return append(bytes.ReplaceAll(raw[:header], []byte("\n"), []byte("\r\n")), raw[header:]...)
	})

	m.text("empty", "no text", func(string) string { return "" })
	m.text("line_break", "a line break inside", func(s string) string { return s[:64] + "\n" + s[64:] })
	m.text("line_break_behind", "a line break at the end", func(s string) string { return s + "\r\n" })
	m.text("blank_before", "a blank before it", func(s string) string { return " " + s })
	m.text("unpadded", "the padding is missing", func(s string) string {
		if !strings.HasSuffix(s, "=") {
			m.Fatal("this value needs no padding")
		}
		return strings.TrimRight(s, "=")
	})
	m.text("trailing_bits", "bits that count for nothing are set", func(s string) string {
		trimmed := strings.TrimRight(s, "=")
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
		i := strings.IndexByte(alphabet, trimmed[len(trimmed)-1])
		return trimmed[:len(trimmed)-1] + string(alphabet[i|1]) + s[len(trimmed):]
	})
	m.text("url_alphabet", "the alphabet for URLs", func(s string) string {
		for !strings.ContainsAny(s, "+/") {
			s = m.seal(aValue, aBinding, classicSecret)
		}
		return strings.NewReplacer("+", "-", "/", "_").Replace(s)
	})
	m.text("twice", "base64 of base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) })
	m.text("plain_text", "no sealed value at all", func(string) string { return "hunter2" })
	armored := "-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n-----END AGE ENCRYPTED FILE-----\n"
	m.text("armor", "age's armor inside", func(string) string { return base64.StdEncoding.EncodeToString([]byte(armored)) })

	m.text("too_long", "more text than the largest value has", func(string) string {
		return strings.Repeat("A", base64.StdEncoding.EncodedLen(maxRawSize)+4)
	})
	v := m.vectors["base64_too_long"]
	v.open, v.check = "too large", "too large"
	m.vectors["base64_too_long"] = v
}
