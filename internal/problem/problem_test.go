package problem

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, tt := range []struct {
		typ    Type
		status int
	}{
		{BadRequest, 400}, {Unauthorized, 401}, {Forbidden, 403}, {NotFound, 404}, {MethodNotAllowed, 405},
		{Current, 409}, {OtherRecipients, 422}, {KeyIDNeeded, 409}, {ShareSetNeeded, 409}, {TooManySets, 409}, {TooLarge, 413}, {NotLeading, 421}, {WrongKey, 422}, {WrongShare, 422}, {Unreadable, 422}, {TooManyRequests, 429}, {Internal, 500}, {Sealed, 503}, {Unavailable, 503}, {Timeout, 504},
	} {
		t.Run(string(tt.typ), func(t *testing.T) {
			rec := httptest.NewRecorder()
			rec.Header().Set("ETag", `"left over from a success"`)
			Write(rec, tt.typ, `what "happened"`, "r1")
			resp := rec.Result()

			if resp.StatusCode != tt.status || tt.typ.Status() != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			for header, want := range map[string]string{
				"Content-Type": ContentType, "Cache-Control": "no-store", "ETag": "", "X-Content-Type-Options": "nosniff", "X-Request-Id": "r1",
			} {
				if got := resp.Header.Get(header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
			var members map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &members); err != nil {
				t.Fatal(err)
			}
			if members["type"] != "https://vsecm.com/problems/"+string(tt.typ) || members["status"] != float64(tt.status) || members["title"] == "" {
				t.Errorf("wrote %s", rec.Body)
			}
			want := Problem{Type: tt.typ, Status: tt.status, Detail: `what "happened"`, RequestID: "r1"}
			if got := *Read(resp); got != want {
				t.Errorf("read %+v, want %+v", got, want)
			}
		})
	}
}

func TestAnswersThatAreNotOursKeepTheirStatus(t *testing.T) {
	for _, tt := range []struct{ name, contentType, body string }{
		{"a proxy's page", "text/html", "<h1>https://vsecm.com/problems/sealed</h1>"},
		{"no content type", "", `{"type":"https://vsecm.com/problems/sealed"}`},
		{"half a problem", ContentType, `{"type":"https://vsecm.com/problems/sea`},
		{"a type of somebody else's", ContentType, `{"type":"about:blank"}`},
		{"a type that only begins like ours", ContentType, `{"type":"https://vsecm.com/problems/sealed-x"}`},
		{"a problem without an end", ContentType, `{"detail":"` + strings.Repeat("x", 1<<20) + `"}`},
		{"a list", ContentType, `[]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			rec.Header().Set("Content-Type", tt.contentType)
			rec.WriteHeader(http.StatusBadGateway)
			_, _ = rec.WriteString(tt.body)
			p := Read(rec.Result())
			if p.Type != "" || p.Status != http.StatusBadGateway || len(p.Error()) > 1000 {
				t.Errorf("read %+v", p)
			}
		})
	}
}
