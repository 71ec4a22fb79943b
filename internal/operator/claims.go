package operator

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

const (
	// maxToken bounds, in bytes, a token that is looked at. A ServiceAccount's has some 1,200.
	maxToken = 8 << 10
	// clockSkew is how far Safe's clock may be ahead of the API server's.
	clockSkew = time.Minute
)

// mayBeFor tells whether the API server could take a token for audience at all: whether
// it says of itself that it is meant for it, and that it has not expired. Nothing of that is verified, and who
// forges a token can write anything there. It is no judgement, which stays the API server's; it spares the
// API server, and the few questions that it may be asked, everything that is meant for
// somebody else, is old, or is noise.
func mayBeFor(audience, token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return false
	}
	// A struct's fields would match names in any case.
	var claims map[string]json.RawMessage
	if json.Unmarshal(payload, &claims) != nil || !slices.Contains(audiencesOf(claims["aud"]), audience) {
		return false
	}
	exp, ok := claims["exp"]
	if !ok {
		return true
	}
	var seconds *float64 // RFC 7519, section 2: NumericDate
	if json.Unmarshal(exp, &seconds) != nil || seconds == nil {
		return false
	}
	return float64(now.Add(-clockSkew).Unix()) < *seconds
}

// audiencesOf reads the claim "aud", a string or several (RFC 7519, section 4.1.3).
func audiencesOf(claim json.RawMessage) []string {
	var one string
	if json.Unmarshal(claim, &one) == nil {
		return []string{one}
	}
	var several []string
	if json.Unmarshal(claim, &several) != nil {
		return nil
	}
	return several
}
