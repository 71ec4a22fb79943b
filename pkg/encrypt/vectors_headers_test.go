package encrypt

import (
	"bytes"
	"slices"
	"strings"

	"filippo.io/age"
)

// headers are values that only somebody who can make a right MAC could make:
// whoever seals, or holds a key.
func (m maker) headers() {
	id := string(KeyIDOf(recipientsOf(m, classicSecret)[0].String()))
	otherID := string(KeyIDOf(recipientsOf(m, otherClassicSecret)[0].String()))
	two := []string{id, otherID}
	slices.Sort(two)

	m.header("unbound", "a plain age file", "unbound", func(s []*age.Stanza, _ []byte) []*age.Stanza { return s[1:] })
	m.header("unbound_unknown_stanza", "no binding, and a stanza of a type that is not supported", "unbound", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0] = &age.Stanza{Type: "example.com/note"}
		return s
	})
	m.header("doubled", "the binding stands there twice", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza { return append(s, s[0]) })
	m.header("second_stanza_of_ours", "a second stanza of vsecm.com/", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		return append(s, &age.Stanza{Type: "vsecm.com/note", Args: []string{"v1"}})
	})
	m.header("other_stanza_of_ours", "vsecm.com/note in the place of the binding", "unbound", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Type = "vsecm.com/note"
		return s
	})
	m.header("unknown_stanza", "a stanza of a type that is not supported", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		return append(s, &age.Stanza{Type: "example.com/note"})
	})
	m.header("scrypt", "a passphrase beside the recipient", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		return append(s, &age.Stanza{Type: "scrypt", Args: []string{"bBjlhJVYZeE4aqUdmtRHfw", "10"}, Body: make([]byte, 32)})
	})
	m.header("hybrid_beside_classic", "an X25519 recipient would undo what the hybrid one is for", "malformed", func(s []*age.Stanza, fileKey []byte) []*age.Stanza {
		hybrid := recipientsOf(m, hybridSecret)[0]
		wrapped, _, err := hybrid.key.(*age.HybridRecipient).WrapWithLabels(fileKey)
		if err != nil {
			m.Fatal(err)
		}
		ids := []string{id, string(hybrid.KeyID())}
		slices.Sort(ids)
		s[0].Args[2] = strings.Join(ids, ",")
		return append(s, wrapped...)
	})
	m.header("more_recipients_than_key_ids", "a recipient that the binding does not name", "malformed", func(s []*age.Stanza, fileKey []byte) []*age.Stanza {
		wrapped, err := recipientsOf(m, otherClassicSecret)[0].key.Wrap(fileKey)
		if err != nil {
			m.Fatal(err)
		}
		return append(s, wrapped...)
	})
	m.argument("fewer_recipients_than_key_ids", "a key id without its recipient", "malformed", 2, strings.Join(two, ","))
	m.header("no_recipients", "the binding alone", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza { return s[:1] })
	m.argument("version", "a version that does not exist yet", "unbound", 0, "v2")
	m.header("no_arguments", "a binding without arguments", "unbound", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Args = nil
		return s
	})
	m.header("argument_missing", "a binding without its time", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Args = s[0].Args[:3]
		return s
	})
	m.header("argument_added", "a binding with one argument more", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Args = append(s[0].Args, "x")
		return s
	})
	m.argument("scope_unknown", "a scope that does not exist", "malformed", 1, "galaxy")
	m.argument("scope_uppercase", "a scope in capitals", "malformed", 1, "Strict")
	m.argument("key_id_uppercase", "a key id in capitals", "malformed", 2, strings.ToUpper(id))
	m.argument("key_id_short", "a key id of 31 digits", "malformed", 2, id[1:])
	m.argument("key_ids_doubled", "one key id twice", "malformed", 2, id+","+id)
	m.header("key_ids_unsorted", "two key ids, the greater first", "malformed", func(s []*age.Stanza, fileKey []byte) []*age.Stanza {
		wrapped, err := recipientsOf(m, otherClassicSecret)[0].key.Wrap(fileKey)
		if err != nil {
			m.Fatal(err)
		}
		s[0].Args[2] = two[1] + "," + two[0]
		return append(s, wrapped...)
	})
	m.argument("time_negative", "sealed before 1970", "malformed", 3, "-1")
	m.argument("time_leading_zero", "one time has one spelling", "malformed", 3, "01767225600")
	m.argument("time_plus", "one time has one spelling", "malformed", 3, "+1767225600")
	m.argument("time_fraction", "whole seconds only", "malformed", 3, "1767225600.5")
	m.argument("time_wraps", "the greatest int64: a clock that wraps around would take it for the past", "malformed", 3, "9223372036854775807")
	m.argument("time_overflow", "more than an int64", "malformed", 3, "9223372036854775808")

	m.body("empty", "no body", "strict", "")
	m.body("unknown_component", "a component that does not exist", "strict", "shop/db/password+webhook:x")
	m.body("workloads_unsorted", "not in the one canonical form", "strict", "shop/db/password@worker,api")
	m.body("workloads_doubled", "a reader twice", "strict", "shop/db/password@api,api")
	m.body("workloads_empty", "an @ and nobody behind it", "strict", "shop/db/password@")
	m.body("out_of_order", "delivery before workloads", "strict", "shop/db/password+secret:Opaque@api")
	m.body("namespace_wildcard", "scope strict, with the body of scope cluster", "strict", "*/*/*")
	m.body("name_climbs", "a name that is no name", "strict", "shop/../password")
	m.body("four_parts", "one part too many", "strict", "shop/db/password/x")
	m.body("two_parts", "one part too few", "strict", "shop/db")
	m.body("newline", "a line break behind it", "strict", "shop/db/password\n")
	m.body("template_short", "a hash of 63 digits", "strict", "shop/db/password#"+aTemplate[1:])
	m.body("forbidden_secret_type", "a type that Safe never delivers", "strict", "shop/db/password+secret:kubernetes.io/service-account-token")
	m.body("cluster_without_readers", "scope cluster, and nothing says who may read", "cluster", "*/*/*")

	m.header("stanzas_33", "33 stanzas, of at most 32", "too large", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		for len(s) < maxStanzas+1 {
			s = append(s, s[1])
		}
		return s
	})
	m.header("stanzas_10000", "10,000 stanzas", "too large", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		for len(s) < 10_000 {
			s = append(s, &age.Stanza{Type: "x"})
		}
		return s
	})
	m.header("huge", "a header of more than 64 KiB", "too large", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Body = bytes.Repeat([]byte("a"), maxHeaderSize)
		return s
	})
}
