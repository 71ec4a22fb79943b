package safecmd

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/vsecm/kubectl-vsecm/internal/safe"
)

func TestRootKeyModes(t *testing.T) {
	kept := safe.RootKey{Name: "vsecm-root-key", Path: "/key/key.txt"}
	with := func(change func(*safe.RootKey)) safe.RootKey {
		r := kept
		change(&r)
		return r
	}
	manual := with(func(r *safe.RootKey) { r.Manual = true })
	memory := with(func(r *safe.RootKey) { r.Manual, r.Memory = true, true })
	for name, tt := range map[string]struct {
		env   map[string]string
		flags []string
		want  safe.RootKey
		says  string
	}{
		"nothing said":                    {want: kept},
		"VSecM's variable":                {env: map[string]string{"VSECM_ROOT_KEY_INPUT_MODE_MANUAL": "true"}, want: manual},
		"VSecM's variable, off":           {env: map[string]string{"VSECM_ROOT_KEY_INPUT_MODE_MANUAL": "false"}, want: kept},
		"VSecM's variable, empty":         {env: map[string]string{"VSECM_ROOT_KEY_INPUT_MODE_MANUAL": ""}, want: kept},
		"the variable, misspelt":          {env: map[string]string{"VSECM_ROOT_KEY_INPUT_MODE_MANUAL": "yes please"}, says: "neither true nor false"},
		"a flag":                          {flags: []string{"--root-key-manual"}, want: manual},
		"a flag goes before its variable": {env: map[string]string{"VSECM_ROOT_KEY_INPUT_MODE_MANUAL": "true"}, flags: []string{"--root-key-manual=false"}, want: kept},
		"memory is manual":                {env: map[string]string{"VSECM_ROOT_KEY_STORE": "memory"}, want: memory},
		"memory and manual":               {env: map[string]string{"VSECM_ROOT_KEY_STORE": "memory", "VSECM_ROOT_KEY_INPUT_MODE_MANUAL": "true"}, want: memory},
		"memory and automatic":            {env: map[string]string{"VSECM_ROOT_KEY_STORE": "memory", "VSECM_ROOT_KEY_INPUT_MODE_MANUAL": "false"}, says: "cannot be made by Safe"},
		"memory and automatic, by flag":   {flags: []string{"--root-key-store=memory", "--root-key-manual=false"}, says: "cannot be made by Safe"},
		"the store's flag goes first":     {env: map[string]string{"VSECM_ROOT_KEY_STORE": "memory"}, flags: []string{"--root-key-store=secret"}, want: kept},
		"a store that there is not":       {env: map[string]string{"VSECM_ROOT_KEY_STORE": "disk"}, says: `unknown root key store "disk"`},
		"another Secret, mounted elsewhere": {
			env:  map[string]string{"VSECM_ROOT_KEY_NAME": "mine", "VSECM_ROOT_KEY_PATH": "/mine"},
			want: with(func(r *safe.RootKey) { r.Name, r.Path = "mine", "/mine" }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{manualVariable, storeVariable, pathVariable, nameVariable} {
				t.Setenv(variable, tt.env[variable])
			}
			var f rootKeyFlags
			cmd := &cobra.Command{Use: "x"}
			f.addTo(cmd)
			if err := cmd.ParseFlags(tt.flags); err != nil {
				t.Fatal(err)
			}
			got, err := f.read()
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}
