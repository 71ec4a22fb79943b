package sops

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// MaxFileSize bounds an encrypted file, in bytes. What is larger holds more than an object may.
const MaxFileSize = 4 << 20

// A Format is how SOPS writes a file, by the name that its command line has for it.
type Format string

// The formats that SOPS has.
const (
	YAML   Format = "yaml"
	JSON   Format = "json"
	Dotenv Format = "dotenv"
	INI    Format = "ini"
	Binary Format = "binary" // any other file, as one text in JSON
)

// An Info is what a file says of itself. Nothing of it is proven before the file is decrypted.
type Info struct {
	Format Format
	// LastModified is when SOPS last wrote a value of the file, in whole seconds; zero where it does not say.
	LastModified time.Time
}

// byExtension are the formats that SOPS takes files for by their names.
var byExtension = map[string]Format{".yaml": YAML, ".yml": YAML, ".json": JSON, ".env": Dotenv, ".ini": INI}

var (
	yamlMark   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^sops:[ \t]*\r?$`) })
	dotenvMark = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^sops_mac=`) })
	iniMark    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^\[sops\][ \t]*\r?$`) })
	modified   = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?m)^[ \t]*"?(?:sops_)?lastmodified"?[ \t]*[:=][ \t]*"?([0-9TZ:.+-]+)"?,?[ \t]*\r?$`)
	})
)

// Detect tells whether a file is one of SOPS', by what is in it. Its name decides where the text leaves two readings,
// as it does for SOPS.
func Detect(name string, data []byte) (Info, bool) {
	if !bytes.Contains(data, []byte("sops")) || !bytes.Contains(data, []byte("mac")) {
		return Info{}, false
	}
	format, ok := formatOf(name, data)
	if !ok {
		return Info{}, false
	}
	info := Info{Format: format}
	// SOPS writes its own fields last.
	if all := modified().FindAllSubmatch(data, -1); len(all) > 0 {
		if at, err := time.Parse(time.RFC3339, string(all[len(all)-1][1])); err == nil {
			info.LastModified = at.UTC().Truncate(time.Second)
		}
	}
	return info, true
}

func formatOf(name string, data []byte) (Format, bool) {
	named := byExtension[filepath.Ext(name)]
	if fields := jsonFields(data); fields != nil {
		var metadata struct {
			MAC *string `json:"mac"`
		}
		if json.Unmarshal(fields["sops"], &metadata) != nil || metadata.MAC == nil {
			return "", false
		}
		switch {
		case named == YAML || named == JSON:
			return named, true
		case len(fields) == 2 && fields["data"] != nil:
			return Binary, true
		}
		return JSON, true
	}
	switch {
	case yamlMark().Match(data):
		return YAML, true
	case dotenvMark().Match(data):
		return Dotenv, true
	case iniMark().Match(data):
		return INI, true
	}
	return "", false
}

// jsonFields returns the fields of a JSON object, or nil where the text is none.
func jsonFields(data []byte) map[string]json.RawMessage {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return nil
	}
	return fields
}

// PlainName returns the name of what a file holds: without what people add to the names of encrypted files.
func PlainName(file string) string {
	name := filepath.Base(file)
	for _, mark := range []string{".enc", ".sops", ".encrypted"} {
		if rest, last := strings.CutSuffix(name, mark); last && rest != "" {
			return rest
		}
		extension := filepath.Ext(name)
		if rest, has := strings.CutSuffix(strings.TrimSuffix(name, extension), mark); has && rest != "" {
			return rest + extension
		}
	}
	return name
}
