package gitsource_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
)

func TestASpecIsCheckedWhateverTheCRDLetThrough(t *testing.T) {
	const good = `"url":"https://git.example/r"`
	for name, c := range map[string]struct {
		spec string
		want string // in the error; empty: none
	}{
		"https":                      {good, ""},
		"https with a port":          {`"url":"https://git.example:8443/r.git"`, ""},
		"ssh":                        {`"url":"ssh://git@git.example:22/r","secretRef":{"name":"c"}`, ""},
		"scp-like":                   {`"url":"git@git.example:a/r.git","secretRef":{"name":"c"}`, ""},
		"http on this machine":       {`"url":"http://127.0.0.1:80/r"`, ""},
		"everything":                 {good + `,"ref":{"branch":"a/b","commit":"` + id + `"},"path":"x/y","interval":"10s","namespaces":["shop"],"verify":{"mode":"strict","secretRef":{"name":"k"},"since":"` + id + `"}`, ""},
		"http":                       {`"url":"http://git.example/r"`, "spec.url: over http"},
		"credentials over http":      {`"url":"http://127.0.0.1/r","secretRef":{"name":"c"}`, "spec.secretRef: credentials are not sent over http"},
		"file":                       {`"url":"file:///etc"`, "spec.url: want https"},
		"a path":                     {`"url":"/etc"`, "spec.url: want https"},
		"git":                        {`"url":"git://git.example/r"`, "spec.url: want https"},
		"ext":                        {`"url":"ext::sh -c id"`, "spec.url: want https"},
		"a password":                 {`"url":"https://git:` + marker + `@git.example/r"`, "credentials do not belong"},
		"a token":                    {`"url":"https://` + marker + `@git.example/r"`, "credentials do not belong"},
		"an ssh password":            {`"url":"ssh://git:` + marker + `@git.example/r","secretRef":{"name":"c"}`, "credentials do not belong"},
		"a URL that cannot be read":  {`"url":"https://git:` + marker + `@%zz/r"`, "spec.url: want https"},
		"an option for ssh":          {`"url":"-oProxyCommand=x@h:r","secretRef":{"name":"c"}`, "spec.url"},
		"a query":                    {`"url":"https://git.example/r?token=` + marker + `"`, "spec.url: want https"},
		"a line break":               {`"url":"https://git.example/r\nx"`, "spec.url: want https"},
		"no host":                    {`"url":"https:///r"`, "spec.url: want https"},
		"no URL":                     {`"path":"x"`, "spec.url: want https"},
		"ssh without a user":         {`"url":"ssh://git.example/r","secretRef":{"name":"c"}`, "needs a user"},
		"ssh without a Secret":       {`"url":"git@git.example:r"`, "spec.secretRef: ssh needs"},
		"a tag and a branch":         {good + `,"ref":{"tag":"v1","branch":"main"}`, "spec.ref: a tag excludes"},
		"a tag and a commit":         {good + `,"ref":{"tag":"v1","commit":"` + id + `"}`, "spec.ref: a tag excludes"},
		"a short commit":             {good + `,"ref":{"commit":"abc"}`, "spec.ref.commit: want a whole"},
		"a branch that is none":      {good + `,"ref":{"branch":"a..b"}`, "spec.ref.branch: want a name"},
		"a branch with refs":         {good + `,"ref":{"branch":"refs/heads/main"}`, "spec.ref.branch"},
		"a tag that is none":         {good + `,"ref":{"tag":"a b"}`, "spec.ref.tag: want a name"},
		"a path that climbs":         {good + `,"path":"a/../../b"`, "spec.path: want a folder"},
		"an absolute path":           {good + `,"path":"/a"`, "spec.path: want a folder"},
		"too often":                  {good + `,"interval":"9s"`, "spec.interval: 10s at least"},
		"never":                      {good + `,"interval":"-1m"`, "spec.interval: 10s at least"},
		"an interval that is none":   {good + `,"interval":"soon"`, "spec: cannot be decoded"},
		"somebody's namespace":       {good + `,"namespaces":["shop","web"]`, "spec.namespaces: a source in shop delivers into shop only"},
		"an unknown verification":    {good + `,"verify":{"mode":"all"}`, "spec.verify.mode: want none"},
		"nobody who is trusted":      {good + `,"verify":{"mode":"head"}`, "spec.verify.secretRef: verification needs"},
		"since without verification": {good + `,"verify":{"since":"` + id + `"}`, "spec.verify.since: says nothing"},
		"since what":                 {good + `,"verify":{"mode":"head","secretRef":{"name":"k"},"since":"x"}`, "spec.verify.since: want a whole"},
		"a Secret's path":            {good + `,"secretRef":{"name":"../c"}`, "spec.secretRef.name: want the name"},
		"no Secret's name":           {good + `,"secretRef":{"name":""}`, "spec.secretRef.name: want the name"},
		"a trust that has no name":   {good + `,"verify":{"mode":"head","secretRef":{"name":"A"}}`, "spec.verify.secretRef.name: want the name"},
		"a number for a URL":         {`"url":5`, "spec: url: want string, not number"},
		"a list for a ref":           {good + `,"ref":[]`, "spec: ref: want"},
	} {
		t.Run(name, func(t *testing.T) {
			err := gitsource.CheckSpec(fmt.Sprintf(`{"metadata":{"namespace":"shop","name":"main"},"spec":{%s}}`, c.spec), "vsecm-system")
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Error("taken")
			case c.want != "" && !strings.Contains(err.Error(), c.want):
				t.Errorf("it says %v, want %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), marker):
				t.Errorf("the error quotes: %v", err)
			}
		})
	}
}

const id = "5f1bd60674c3421f1bc28fe5240fa07acd6fe56b"

func TestOnlySafesOwnNamespaceReachesOthers(t *testing.T) {
	source := func(namespace, name, more string) string {
		return fmt.Sprintf(`{"metadata":{"namespace":%q,"name":%q},"spec":{"url":"https://git.example/r"%s}}`, namespace, name, more)
	}
	for name, c := range map[string]struct{ source, want string }{
		"its own":             {source("vsecm-system", "a", ""), ""},
		"others":              {source("vsecm-system", "a", `,"namespaces":["shop","web"]`), ""},
		"what is none":        {source("vsecm-system", "a", `,"namespaces":["Shop"]`), "spec.namespaces"},
		"Safe's root key":     {source("vsecm-system", "a", `,"secretRef":{"name":"vsecm-root-key"}`), "spec.secretRef.name"},
		"a tenant's root key": {source("shop", "a", `,"secretRef":{"name":"vsecm-root-key"}`), ""},
		"the longest name":    {source("shop", strings.Repeat("x", 58), ""), ""},
		"a longer name":       {source("shop", strings.Repeat("x", 59), ""), "metadata.name"},
	} {
		t.Run(name, func(t *testing.T) {
			err := gitsource.CheckSpec(c.source, "vsecm-system")
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %v, want %q", err, c.want)
			}
		})
	}
}

func TestCredentialsAreWholeOrRefused(t *testing.T) {
	for name, c := range map[string]struct {
		data string // KEY=VALUE, separated by spaces
		ssh  bool
		want string
	}{
		"a user":                  {"username=git password=" + marker, false, ""},
		"a token":                 {"bearerToken=" + marker, false, ""},
		"a CA":                    {"ca.crt=x", false, ""},
		"ssh":                     {"identity=x known_hosts=y", true, ""},
		"nothing":                 {"", false, "none of"},
		"something else":          {"token=" + marker, false, "none of"},
		"both":                    {"username=git password=" + marker + " bearerToken=" + marker, false, "exclude"},
		"no password":             {"username=git", false, "password is missing"},
		"no user":                 {"password=" + marker, false, "username is missing"},
		"an empty password":       {"username=git password=", false, "password is empty"},
		"two lines":               {"bearerToken=" + marker + "\x01x", false, "control characters"},
		"ssh without known_hosts": {"identity=x", true, "known_hosts is missing"},
		"ssh without a key":       {"known_hosts=x", true, "identity is missing"},
		"ssh with a password":     {"username=git password=x", true, "identity is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			data := make(map[string][]byte)
			for _, kv := range strings.Fields(c.data) {
				key, value, _ := strings.Cut(kv, "=")
				data[key] = []byte(value)
			}
			err := gitsource.CheckCredentials(data, c.ssh)
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), marker) {
				t.Errorf("the error quotes: %v", err)
			}
		})
	}
}

func FuzzASpecNeverPanicsAndNothingOddIsTaken(f *testing.F) {
	for _, seed := range []string{"https://git.example/r", "ssh://git@h/p", "git@h:p", "http://127.0.0.1/x", "https://a:b@c/d", "file:///x", "-x@y:z", "https://[::1]:1/r"} {
		f.Add(seed, "main", "a/b")
	}
	f.Fuzz(func(t *testing.T, url, branch, path string) {
		if !utf8.ValidString(url + branch + path) {
			return
		}
		err := gitsource.CheckSpec(toJSON(t, map[string]any{
			"metadata": map[string]string{"namespace": "shop", "name": "main"},
			"spec":     map[string]any{"url": url, "ref": map[string]string{"branch": branch}, "path": path, "secretRef": map[string]string{"name": "c"}},
		}), "vsecm-system")
		if err != nil {
			return
		}
		if strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "file:") || strings.HasPrefix(url, "/") || strings.ContainsAny(url, " \n\x00?#") ||
			strings.Contains("/"+path+"/", "/../") || strings.HasPrefix(branch, "-") {
			t.Errorf("taken: %q %q %q", url, branch, path)
		}
	})
}

func TestTextsOfOthersAreCut(t *testing.T) {
	for _, s := range []string{"", "abc", strings.Repeat("x", 20), strings.Repeat("é", 20), strings.Repeat("\xff", 20)} {
		if got := gitsource.Cut(s, 10); len(got) > 10 || len(s) <= 10 && got != s {
			t.Errorf("Cut(%q) = %q", s, got)
		}
	}
}
