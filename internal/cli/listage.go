package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// An ageFlag is how long ago something was, in days or as a duration; 0 if it is not given.
type ageFlag struct {
	age  time.Duration
	text string
}

// maxAge is as much as a duration holds, and a little less.
const maxAge = 100 * 365 * 24 * time.Hour

func (f *ageFlag) String() string { return f.text }
func (f *ageFlag) Type() string   { return "AGE" }

func (f *ageFlag) Set(value string) error {
	age, err := time.ParseDuration(value)
	if days, inDays := strings.CutSuffix(value, "d"); inDays {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		age = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || age <= 0 || age > maxAge {
		return errors.New("want days, such as 90d, or hours, such as 2160h, of 100 years at most")
	}
	f.age, f.text = age, value
	return nil
}

// An agedSecret is a listed EncryptedSecret with the age of its values.
type agedSecret struct {
	listedSecret
	sealed map[string]time.Time // by key; zero where a value does not say
}

func (s *agedSecret) UnmarshalJSON(text []byte) error {
	var values struct {
		Spec struct {
			EncryptedData map[string]string `json:"encryptedData"`
		} `json:"spec"`
	}
	if err := errors.Join(json.Unmarshal(text, &s.listedSecret), json.Unmarshal(text, &values)); err != nil {
		return err
	}
	s.sealed = make(map[string]time.Time, len(values.Spec.EncryptedData))
	for key, sealed := range values.Spec.EncryptedData {
		info, err := encrypt.Inspect(sealed)
		if err != nil {
			info.SealedAt = time.Time{}
		}
		s.sealed[key] = info.SealedAt
	}
	return nil
}

// olderThan returns the keys whose values were sealed before a time, or do not say when: they may have been.
func (s *agedSecret) olderThan(before time.Time) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(s.sealed)) {
		if s.sealed[key].Before(before) {
			keys = append(keys, key)
		}
	}
	return keys
}

// oldest says how long ago the first of the values was sealed.
func (s *agedSecret) oldest(now time.Time) string {
	first := slices.MinFunc(slices.Collect(maps.Values(s.sealed)), time.Time.Compare)
	if first.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(first))
}

// mostOldKeys is how many keys of an object the table names.
const mostOldKeys = 3

// agedHeader is secretHeader with what an agedRow has besides.
func agedHeader(wide bool) []string {
	header := secretHeader(wide)
	return slices.Insert(header, agedColumn-1, "SEALED", "OLD-VALUES")
}

// agedColumn is where the ages stand in a row, behind the object's own.
const agedColumn = 8

// agedRow returns what makes the row of an object with values that were sealed before a time, and none for the
// others.
func agedRow(now time.Time, age time.Duration) func(s *agedSecret, wide bool) []string {
	return func(s *agedSecret, wide bool) []string {
		old := s.olderThan(now.Add(-age))
		if len(old) == 0 {
			return nil
		}
		names := strings.Join(old, ",")
		if more := len(old) - mostOldKeys; more > 0 && !wide {
			names = fmt.Sprintf("%s,+%d", strings.Join(old[:mostOldKeys], ","), more)
		}
		return slices.Insert(s.row(wide), agedColumn, s.oldest(now), names)
	}
}

// isOld tells the same of an object as the API server has it.
func isOld(raw json.RawMessage, before time.Time) (bool, error) {
	var s agedSecret
	if err := json.Unmarshal(raw, &s); err != nil {
		return false, errNotKubernetes
	}
	return len(s.olderThan(before)) > 0, nil
}
