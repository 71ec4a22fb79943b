// Package problem writes and reads the errors of Safe's API: RFC 9457
// application/problem+json.
//
// A problem's type is stable, and is what a program decides on:
//
//	https://vsecm.com/problems/bad-request        400  the request makes no sense; sending it again will not help
//	https://vsecm.com/problems/unauthorized       401  nothing valid proves who calls: no X.509-SVID, operator's token or webhook's signature
//	https://vsecm.com/problems/forbidden          403  the caller is known, and may not do this
//	https://vsecm.com/problems/not-found          404  there is nothing under this path
//	https://vsecm.com/problems/method-not-allowed 405  the path does not take this method
//	https://vsecm.com/problems/current            409  reencrypt: the value is sealed to no retired key
//	https://vsecm.com/problems/key-id-needed      409  unseal: which root key this Safe had is not on record; name the one that is accepted
//	https://vsecm.com/problems/share-set-needed   409  unseal: this replica holds no share of the set; send the set's public file, too
//	https://vsecm.com/problems/too-many-sets      409  unseal: shares of too many sets are held; reset one
//	https://vsecm.com/problems/no-rekey           409  rekey: none is under way
//	https://vsecm.com/problems/other-rekey        409  rekey: another one is under way; the detail names it
//	https://vsecm.com/problems/not-staged         409  rekey: the key was not handed to this replica before, or cannot be now
//	https://vsecm.com/problems/too-large          413  the body is larger than the call takes
//	https://vsecm.com/problems/not-leading        421  another replica has to be asked; the detail names it, where one is known
//	https://vsecm.com/problems/other-recipients   422  reencrypt: the recipients are not the value's own, with retired keys replaced by the active one
//	https://vsecm.com/problems/wrong-key          422  unseal: the key, or that of the share's set, is not this Safe's root key; rekey: the key cannot be the next one
//	https://vsecm.com/problems/wrong-share        422  unseal: the share does not count; what was given before still does
//	https://vsecm.com/problems/unreadable         422  the object exists, and does not open
//	https://vsecm.com/problems/too-many-requests  429  the caller has too many requests open, or tries too often
//	https://vsecm.com/problems/internal           500  a fault of Safe's; its log has it under the request id
//	https://vsecm.com/problems/sealed             503  Safe holds no root key
//	https://vsecm.com/problems/unavailable        503  Safe is starting, or cannot do this now; try again
//	https://vsecm.com/problems/timeout            504  the work did not end in time
//
// The addresses are names; nothing needs to be found there. The member
// requestId is the one under which the audit log has the call.
package problem

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
)

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

const prefix = "https://vsecm.com/problems/"

// maxSize bounds, in bytes, a problem that is read.
const maxSize = 64 << 10

// A Type is a kind of problem, without the address before it.
type Type string

// The types, as the package comment describes them.
const (
	BadRequest       Type = "bad-request"
	Unauthorized     Type = "unauthorized"
	Forbidden        Type = "forbidden"
	NotFound         Type = "not-found"
	MethodNotAllowed Type = "method-not-allowed"
	Current          Type = "current"
	KeyIDNeeded      Type = "key-id-needed"
	ShareSetNeeded   Type = "share-set-needed"
	TooManySets      Type = "too-many-sets"
	NoRekey          Type = "no-rekey"
	OtherRekey       Type = "other-rekey"
	NotStaged        Type = "not-staged"
	TooLarge         Type = "too-large"
	NotLeading       Type = "not-leading"
	OtherRecipients  Type = "other-recipients"
	WrongKey         Type = "wrong-key"
	WrongShare       Type = "wrong-share"
	Unreadable       Type = "unreadable"
	TooManyRequests  Type = "too-many-requests"
	Internal         Type = "internal"
	Sealed           Type = "sealed"
	Unavailable      Type = "unavailable"
	Timeout          Type = "timeout"
)

// URI returns the type as it is written in a problem.
func (t Type) URI() string { return prefix + string(t) }

// Status returns the HTTP status that a problem of type t is sent with.
func (t Type) Status() int {
	status, _ := t.describe()
	return status
}

func (t Type) describe() (status int, title string) {
	switch t {
	case BadRequest:
		return http.StatusBadRequest, "The request is malformed"
	case Unauthorized:
		return http.StatusUnauthorized, "Nothing valid proves who calls"
	case Forbidden:
		return http.StatusForbidden, "The caller may not do this"
	case NotFound:
		return http.StatusNotFound, "There is nothing here"
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed, "The method is not allowed here"
	case Current:
		return http.StatusConflict, "The value needs no new key"
	case KeyIDNeeded:
		return http.StatusConflict, "The accepted key id must be named"
	case ShareSetNeeded:
		return http.StatusConflict, "The public file of the share's set is needed"
	case TooManySets:
		return http.StatusConflict, "Shares of too many sets are held"
	case NoRekey:
		return http.StatusConflict, "No re-key is under way"
	case OtherRekey:
		return http.StatusConflict, "Another re-key is under way"
	case NotStaged:
		return http.StatusConflict, "The key was not handed to this replica"
	case TooLarge:
		return http.StatusRequestEntityTooLarge, "The body is too large"
	case NotLeading:
		return http.StatusMisdirectedRequest, "Another replica leads"
	case OtherRecipients:
		return http.StatusUnprocessableEntity, "The recipients are not the value's own"
	case WrongShare:
		return http.StatusUnprocessableEntity, "The share does not count"
	case WrongKey:
		return http.StatusUnprocessableEntity, "The key is not this Safe's root key"
	case Unreadable:
		return http.StatusUnprocessableEntity, "The object cannot be read"
	case TooManyRequests:
		return http.StatusTooManyRequests, "The caller asks too often, or for too much at once"
	case Sealed:
		return http.StatusServiceUnavailable, "Safe is sealed"
	case Unavailable:
		return http.StatusServiceUnavailable, "Safe cannot do this now"
	case Timeout:
		return http.StatusGatewayTimeout, "The work did not end in time"
	default:
		return http.StatusInternalServerError, "Safe failed"
	}
}

// A Problem is one failed call.
type Problem struct {
	// Type is empty where what was read is not one of ours.
	Type Type
	// Status is the HTTP status.
	Status int
	// Detail says, for people, what happened to this call. It never holds a
	// secret value.
	Detail string
	// RequestID finds the call in the audit log.
	RequestID string
}

// wire is a problem as RFC 9457 writes it.
type wire struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"requestId,omitempty"`
}

// Error returns the detail, or the title where there is none.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" && p.Type != "" {
		_, text = p.Type.describe()
	}
	if text == "" {
		text = http.StatusText(p.Status)
	}
	if p.RequestID == "" {
		return fmt.Sprintf("%d: %s", p.Status, text)
	}
	return fmt.Sprintf("%d: %s (request %s)", p.Status, text, p.RequestID)
}

// Write answers a request with a problem of type t. It is the only way in
// which Safe answers an error.
func Write(w http.ResponseWriter, t Type, detail, requestID string) {
	status, title := t.describe()
	body, err := json.Marshal(wire{t.URI(), title, status, detail, requestID})
	if err != nil {
		// Strings and numbers always marshal.
		panic(err)
	}
	body = append(body, '\n')
	h := w.Header()
	h.Del("ETag")
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Request-Id", requestID)
	w.WriteHeader(status)
	// The caller may be gone; that is its loss alone.
	_, _ = w.Write(body)
}

// Read reads the problem that resp carries. Of an answer that is not a problem
// of ours (a proxy's page, say) it keeps the status. It reads at most 64 KiB,
// and leaves closing the body to the caller.
func Read(resp *http.Response) *Problem {
	p := &Problem{Status: resp.StatusCode}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != ContentType {
		return p
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSize))
	if err != nil {
		return p
	}
	var in wire
	if err := json.Unmarshal(body, &in); err != nil {
		return p
	}
	p.Detail, p.RequestID = in.Detail, in.RequestID
	p.Type = parseType(in.Type)
	return p
}

// parseType returns "" for a type that is not ours.
func parseType(uri string) Type {
	for _, t := range []Type{
		BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed,
		Current, OtherRecipients, KeyIDNeeded, ShareSetNeeded, TooManySets, NoRekey, OtherRekey, NotStaged, TooLarge, NotLeading, WrongKey, WrongShare, Unreadable, TooManyRequests, Internal, Sealed, Unavailable, Timeout,
	} {
		if uri == t.URI() {
			return t
		}
	}
	return ""
}
