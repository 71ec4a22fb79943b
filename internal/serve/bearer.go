package serve

import (
	"errors"
	"net/http"
	"strings"
)

// maxToken bounds an operator's token, in bytes. A ServiceAccount's has some 1,200.
const maxToken = 8 << 10

var (
	errNoToken  = errors.New("this call needs an operator's token: Authorization: Bearer …")
	errBadToken = errors.New("the Authorization header holds no token of Kubernetes")
)

// bearerOf returns the token that a request shows (RFC 6750, section 2.1). What cannot
// be a token of Kubernetes, a JWT, is refused here, so that the API server is not
// asked about noise. Errors never quote the header.
func bearerOf(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", errNoToken
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || len(values) != 1 || !strings.EqualFold(scheme, "Bearer") || !isJWT(token) {
		return "", errBadToken
	}
	return token, nil
}

// isJWT tells whether s has the shape of a signed JWT: three parts of base64url.
func isJWT(s string) bool {
	if len(s) > maxToken {
		return false
	}
	parts := 0
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || strings.Trim(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
		parts++
	}
	return parts == 3
}
