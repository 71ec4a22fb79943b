//go:build linux

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// answering returns a cluster whose API server answers as it is told.
func answering(t *testing.T, answer http.HandlerFunc) *cluster {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	base, err := url.Parse(srv.URL)
	check(t, err)
	return &cluster{client: srv.Client(), base: base}
}

func TestListsAreReadPageByPage(t *testing.T) {
	pages := map[string]string{
		"":      `{"apiVersion":"v1","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}],"metadata":{"continue":"next"}}`,
		"next":  `{"kind":"Status","code":410,"message":"too old","metadata":{"continue":"newer"}}`,
		"newer": `{"metadata":{"continue":"last"},"items":[{"metadata":{"name":"c"}}]}`,
		"last":  `{"items":null}`,
	}
	var asked []string
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		at := r.URL.Query().Get("continue")
		asked = append(asked, at)
		if r.URL.Path != "/apis/vsecm.com/v1alpha1/namespaces/shop/encryptedsecrets" || r.URL.Query().Get("limit") == "" || r.URL.Query().Get("labelSelector") != "a=b" {
			t.Errorf("asked %s", r.URL)
		}
		if at == "next" {
			w.WriteHeader(http.StatusGone)
		}
		fmt.Fprint(w, pages[at])
	})
	var names []string
	err := each(t.Context(), c, c.objects("encryptedsecrets", "shop"), "a=b", func(s *listedSecret) error {
		names = append(names, s.Metadata.Name)
		return nil
	})
	if err != nil || !slices.Equal(names, []string{"a", "b", "c"}) || !slices.Equal(asked, []string{"", "next", "newer", "last"}) {
		t.Errorf("got %q, asked %q: %v", names, asked, err)
	}
	stop := errors.New("stop")
	if err := each(t.Context(), c, c.objects("encryptedsecrets", "shop"), "a=b", func(*listedSecret) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNoListIsAnError(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":            ``,
		"a page":             `<html>`,
		"a list":             `[]`,
		"items of no kind":   `{"items":"x"}`,
		"items of no object": `{"items":["x"]}`,
		"half a list":        `{"items":[{"metadata":{"name":"a"}}`,
		"half an object":     `{"items":[{"metadata":`,
		"no end":             `{"items":[]`,
		"too large an item":  `{"items":[{"x":"` + strings.Repeat("x", maxAnswerSize+1<<20) + `"}]}`,
		"too large a rest":   `{"x":"` + strings.Repeat("x", maxAnswerSize+1<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := apiServer(t, answer)
			err := each(t.Context(), c, c.objects("encryptedsecrets", ""), "", func(*listedSecret) error { return nil })
			if err == nil || strings.Contains(err.Error(), "xxxx") || !strings.HasPrefix(err.Error(), "asking "+c.String()) {
				t.Errorf("got %.200v", err)
			}
			if large := strings.Contains(name, "large"); large != errors.Is(err, errLarger) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A page may be larger than what is read of one object.
func TestManyObjectsAreNotTakenForOneThatIsTooLarge(t *testing.T) {
	item := `{"metadata":{"name":"a"},"spec":{"encryptedData":{"k":"` + strings.Repeat("x", 1<<20) + `"}}}`
	const many = maxAnswerSize>>20 + 2
	c := apiServer(t, `{"items":[`+strings.Repeat(item+",", many-1)+item+`]}`)
	n := 0
	err := each(t.Context(), c, c.objects("encryptedsecrets", ""), "", func(s *listedSecret) error {
		n += len(s.Spec.EncryptedData)
		return nil
	})
	if err != nil || n != many {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestAStatusIsOfTheObjectAsItIs(t *testing.T) {
	condition := func(kind string, generation int64) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: "Served", ObservedGeneration: generation}
	}
	for name, tt := range map[string]struct {
		conditions []metav1.Condition
		want       string
		stalled    bool
	}{
		"none":            {nil, "Unknown Pending", false},
		"another":         {[]metav1.Condition{condition("Synced", 2)}, "Unknown Pending", false},
		"of it as it is":  {[]metav1.Condition{condition("Synced", 1), condition("Ready", 2)}, "True Served", false},
		"of it as it was": {[]metav1.Condition{condition("Ready", 1), condition("Stalled", 1)}, "Unknown Pending", false},
		"stalled":         {[]metav1.Condition{condition("Ready", 2), condition("Stalled", 2)}, "True Served", true},
	} {
		r := readinessOf(tt.conditions, 2)
		if got := r.status + " " + r.reason; got != tt.want || stalled(tt.conditions, 2) != tt.stalled {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestColumnsOfAnOlderCRDAreNotCounted(t *testing.T) {
	table := func(columns string) string {
		return `{"kind":"Table","columnDefinitions":[` + columns + `],"rows":[{"cells":["a","True","Served"]},{"cells":["b","False","Unreadable"]},{"cells":["c",null,null]},{"cells":[]}]}`
	}
	counts, err := apiServer(t, table(`{"name":"Name"},{"name":"Ready"},{"name":"Reason"}`)).countSecrets(t.Context())
	if text, _ := json.Marshal(counts); err != nil || string(text) != `{"total":3,"ready":1,"notReady":{"Pending":1,"Unreadable":1}}` {
		t.Errorf("got %s, %v", text, err)
	}
	if counts, err := apiServer(t, table(`{"name":"Name"},{"name":"Scope"},{"name":"Age"}`)).countSecrets(t.Context()); err == nil {
		t.Errorf("got %+v", counts)
	}
}

func TestTheSourceOfAnObjectIsNamedAsSyncTakesIt(t *testing.T) {
	for label, want := range map[string]string{"": "", "shop.config": "shop/config", "shop.config.v2": "shop/config.v2", "config": "config"} {
		if got := sourceName(map[string]string{"vsecm.com/source": label}); got != want {
			t.Errorf("%q: got %q", label, got)
		}
	}
}

// Whoever deletes on a terminal sees what goes, and is asked.
func TestDeletingAsksOnATerminal(t *testing.T) {
	key := newKey(t)
	w := install(t, key)
	w.create("asks")
	t.Cleanup(func() { w.empty("asks") })
	o := sealedTo(t, key)
	o.Namespace = "asks"
	text, err := json.Marshal(o)
	check(t, err)
	w.kubectl(string(text), "create", "-f", "-")
	t.Setenv("KUBECONFIG", w.cp.Kubeconfig())
	for _, answer := range []string{"\r", "n\r", "never\r", "y\r"} {
		p := at(t, "delete", "needs", "-n", "asks")
		p.sees("delete it? [y/N] ", 1)
		p.types(answer)
		code, screen := p.leaves()
		if !strings.Contains(screen, "EncryptedSecret asks/needs, with key key\r\n") || strings.Contains(screen, "error: nothing was deleted") == (answer == "y\r") || code == exitOK != (answer == "y\r") {
			t.Errorf("%q: exit code %d: %s", answer, code, screen)
		}
	}
	if left := w.kubectl("", "get", "encryptedsecrets", "-n", "asks", "-o", "name"); left != "" {
		t.Errorf("left: %s", left)
	}
	w.kubectl(string(text), "create", "-f", "-")
	if code, screen := at(t, "delete", "needs", "-n", "asks", "--yes").leaves(); code != exitOK || strings.Contains(screen, "[y/N]") {
		t.Errorf("exit code %d: %s", code, screen)
	}
	// What takes long is told, and the line is gone when it is over.
	w.kubectl(string(text), "create", "-f", "-")
	w.kubectl("", "patch", "encryptedsecret", "-n", "asks", "needs", "--type=merge", "-p", `{"metadata":{"finalizers":["example.com/slow"]}}`)
	p := at(t, "delete", "needs", "-n", "asks", "--yes")
	p.sees("\rwaiting for asks/needs to be gone (2s)", 1)
	w.kubectl("", "patch", "encryptedsecret", "-n", "asks", "needs", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	if code, screen := p.leaves(); code != exitOK || !strings.HasSuffix(screen, " \rencryptedsecret.vsecm.com/needs deleted\r\n") {
		t.Errorf("exit code %d: %q", code, screen)
	}
}

// A person without rights learns which ones to ask for.
func TestWhoMayNotIsToldWhatToAskFor(t *testing.T) {
	w := install(t, newKey(t))
	inFolder(t, nil)
	nobody := w.person("nobody", "")
	for _, args := range [][]string{{"list"}, {"list", "-A"}, {"list", "x"}, {"list", "--sources"}, {"delete", "x"}, {"register", "x", "-n", "default", "--from-literal", "a=b"}} {
		code, stdout, stderr := w.vsecm(nobody, "", args...)
		if code != exitError || stdout != "" || !strings.Contains(stderr, `User "nobody" cannot `) || !strings.Contains(stderr, "hint: ask for the right to") {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
}
