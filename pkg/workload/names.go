package workload

import "strings"

// maxName bounds, in bytes, the name of a secret and that of a key.
const maxName = 253

// isObjectName reports whether s is a DNS subdomain as Kubernetes names its
// objects (RFC 1123): so it is also the name of a file, and of no other
// directory.
func isObjectName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || 'z' < c) && (c < '0' || '9' < c) && c != '-' {
				return false
			}
		}
	}
	return true
}

// isKey reports whether s is what Kubernetes allows as a key of a Secret.
func isKey(s string) bool {
	if s == "" || len(s) > maxName || s == "." || strings.HasPrefix(s, "..") {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
