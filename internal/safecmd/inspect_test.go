package safecmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// inspectNow is the time by the clock of the tests of "safe inspect".
var inspectNow = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// runInspect runs "safe inspect" and returns its exit code and what it printed.
// When the SVID expires, and where Safe is, is replaced in it.
func runInspect(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	streams := genericiooptions.IOStreams{In: strings.NewReader(""), Out: &o, ErrOut: &e}
	options := inspectOptions{streams: streams, now: func() time.Time { return inspectNow }}
	cmd := options.command()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	code = report(&e, cmd.ExecuteContext(t.Context()))
	var lines []string
	for line := range strings.Lines(o.String()) {
		switch {
		case strings.HasPrefix(line, "SVID        expires in "):
			line = "SVID        EXPIRY\n"
		case strings.HasPrefix(line, "Safe        https://127.0.0.1:"):
			line = "Safe        URL\n"
		}
		lines = append(lines, line)
	}
	return code, strings.Join(lines, ""), e.String()
}

const (
	identityLines = "SPIFFE ID   spiffe://example.org/ns/shop/sa/db\nSVID        EXPIRY\nSafe        URL\n"
	inspected     = `{"spiffeID":"spiffe://example.org/ns/shop/sa/db","namespace":"shop","name":"db","expires":"2026-01-10T13:00:00Z","objects":[%s]}`
)

// inspectable answers both calls of "safe inspect".
func inspectable(objects, secrets string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/inspect":
			_, _ = fmt.Fprintf(w, inspected, objects)
		case "/v1/secrets":
			_, _ = fmt.Fprintf(w, `{"secrets":[%s]}`, secrets)
		default:
			problem.Write(w, problem.NotFound, "", "r1")
		}
	}
}

const (
	servedObject  = `{"name":"db","version":"5d1f0e3a9c21b8aa77","updated":"2026-01-07T12:00:00Z","state":"served"}`
	expiredObject = `{"name":"api","version":"aa11","updated":"2026-01-01T12:00:00Z","state":"expired","reason":"it expired at 2026-01-09T12:00:00Z","expiresAt":"2026-01-09T12:00:00Z"}`
)

func TestInspectPrintsATable(t *testing.T) {
	for _, tt := range []struct {
		name, objects string
		want          string
	}{
		{"one that is served", servedObject, `
SECRET   STATE    VERSION        SEALED
db       served   5d1f0e3a9c21   3d ago
`},
		{"each state, and why", strings.Join([]string{
			servedObject, expiredObject,
			`{"name":"early","version":"bb","updated":"2026-01-01T12:00:00Z","state":"notYetValid","reason":"it is not valid before 2026-01-11T12:00:00Z","notBefore":"2026-01-11T12:00:00Z"}`,
			`{"name":"broken","version":"cc","state":"unreadable","reason":"key password: sealed for another name"}`,
			`{"name":"much","version":"dd","updated":"2026-01-10T11:00:00Z","state":"leftOut","reason":"the workload has more secrets than an answer has room for"}`,
			`{"name":"lasting","version":"ee","updated":"2026-01-10T11:00:00Z","state":"served","notBefore":"2026-01-01T00:00:00Z","expiresAt":"2026-01-17T12:00:00Z"}`,
			`{"name":"new","version":"ff","state":"onHold"}`,
		}, ","), `
SECRET    STATE           VERSION        SEALED    VALID           REASON
api       expired         aa11           9d ago    until 24h ago   it expired at 2026-01-09T12:00:00Z
broken    unreadable      cc             -         -               key password: sealed for another name
db        served          5d1f0e3a9c21   3d ago    -               -
early     not yet valid   bb             9d ago    in 24h          it is not valid before 2026-01-11T12:00:00Z
lasting   served          ee             60m ago   for 7d          -
much      left out        dd             60m ago   -               the workload has more secrets than an answer has room for
new       onHold          ff             -         -               -
`},
		{"what a terminal would obey", `{"name":"db","version":"\u001b[2J","state":"\u001b[31m","reason":"\u001b]0;x\u0007"}`, `
SECRET   STATE        VERSION     REASON
db       "\x1b[31m"   "\x1b[2J"   "\x1b]0;x\a"
`},
		{"nothing", "", `
It has no secrets: no EncryptedSecret in namespace shop names it.
One does with db in its spec.workloads, or with the name db and no spec.workloads.
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errOut := runInspect(t, startSafe(t, inspectable(tt.objects, ""))...)
			want := identityLines + "Workload    shop/db\n" + tt.want
			if code != exitOK || errOut != "" || out != want {
				t.Errorf("exit %d, printed %q and\n%s\nwant\n%s", code, errOut, out, want)
			}
		})
	}
}

func TestInspectShowsValuesWhenAskedAlone(t *testing.T) {
	secrets := `{"name":"db","version":"v","updated":"2026-01-07T12:00:00Z","data":{
		"password":"czNjcjN0IHdvcmQ=","pem":"YQpiCg==","binary":"AP8=","empty":"","quoted":"IngieA==","like":"YmFzZTY0Ong=","space":"IHg=","esc":"G1sySg==","unicode":"cMOkNTU="}}`
	safe := startSafe(t, inspectable(servedObject, secrets))
	for _, args := range [][]string{nil, {"-o", "json"}} {
		code, out, errOut := runInspect(t, append(args, safe...)...)
		if code != exitOK || errOut != "" || strings.Contains(out, "s3cr3t") || strings.Contains(out, "czNj") || strings.Contains(out, "password") {
			t.Errorf("%v: exit %d, printed %q and %q", args, code, out, errOut)
		}
	}
	_, out, _ := runInspect(t, append([]string{"--show"}, safe...)...)
	_, values, _ := strings.Cut(out, "3d ago\n\n")
	want := `db/binary: base64:AP8=
db/empty: ""
db/esc: "\x1b[2J"
db/like: "base64:x"
db/password: s3cr3t word
db/pem: "a\nb\n"
db/quoted: "\"x\"x"
db/space: " x"
db/unicode: pä55
`
	if values != want {
		t.Errorf("printed\n%s\nwant\n%s", values, want)
	}
	code, out, errOut := runInspect(t, append([]string{"--show", "-o", "json"}, safe...)...)
	var got struct {
		Safe, SPIFFEID, Namespace, Name string
		Objects                         []struct {
			Name, State string
			Data        map[string][]byte
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK || errOut != "" {
		t.Fatalf("exit %d, %v, printed %q", code, err, errOut)
	}
	if got.SPIFFEID != "spiffe://example.org/ns/shop/sa/db" || got.Namespace != "shop" || got.Name != "db" || !strings.HasPrefix(got.Safe, "https://127.") ||
		len(got.Objects) != 1 || got.Objects[0].State != "served" || string(got.Objects[0].Data["binary"]) != "\x00\xff" {
		t.Errorf("got %+v", got)
	}
}

// Who this is, is shown whatever Safe says.
func TestInspectFails(t *testing.T) {
	refuse := func(p problem.Type) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, p, "a detail", "r1") }
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		args    []string
		code    int
		out     string
		says    string
		hint    string
	}{
		{"sealed", refuse(problem.Sealed), nil, exitAgain, identityLines, "sealed", "unseal"},
		{"not let in", refuse(problem.Forbidden), nil, exitRefused, identityLines, "a detail (request r1)", "audit log"},
		{"an older Safe", refuse(problem.NotFound), nil, exitError, identityLines, "a detail", "older"},
		{"not Safe", inspectable("", ""), []string{"--safe-id", "spiffe://example.org/other"}, exitRefused, identityLines, "not Safe", "--safe-id"},
		{"half an answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, inspected[:40]) }, nil, exitError, identityLines, "malformed", ""},
		{"another answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }, nil, exitError, identityLines, "spiffeID", ""},
		{"a name that is none", inspectable(`{"name":"../x","state":"served"}`, ""), nil, exitError, identityLines, "not the name", ""},
		{"a name twice", inspectable(servedObject+","+servedObject, ""), nil, exitError, identityLines, "db", ""},
		{"values that do not come", inspectable(servedObject, `{"name":"db","data":{"k":1}}`), []string{"--show"}, exitError, identityLines, "wrong kind", ""},
		{"no JSON when it fails", refuse(problem.Sealed), []string{"-o", "json"}, exitAgain, "", "sealed", "unseal"},
		{"an odd format", inspectable("", ""), []string{"-o", "yaml"}, exitError, "", "want json", ""},
		{"an argument", inspectable("", ""), []string{"db"}, exitError, "", "db", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errOut := runInspect(t, append(startSafe(t, tt.handler), tt.args...)...)
			first, rest, _ := strings.Cut(errOut, "\n")
			if code != tt.code || out != tt.out || !strings.HasPrefix(first, "error: ") || !strings.Contains(first, tt.says) {
				t.Errorf("exit %d, printed %q and %q", code, out, errOut)
			}
			if hinted := strings.HasPrefix(rest, "hint: "); hinted != (tt.hint != "") || !strings.Contains(rest, tt.hint) {
				t.Errorf("hint %q", rest)
			}
		})
	}
}
